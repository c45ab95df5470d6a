/** The name of a user, as people know each other. */
export function nameOf(user: { username: string; displayName?: string | null }): string {
  return user.displayName || user.username;
}
