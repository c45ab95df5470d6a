/** Who is signed in: the access token, which token.js stores until the tab is closed. */

import { storeToken, token } from "../../plain/assets/token.js";
import { Store } from "./store";

/** The token, or null and what to tell the person who must sign in. */
export type Session = { token: string | null; notice?: string | undefined };

export const session = new Store<Session>({ token: token() });

/** Uses a token from now on. */
export function signIn(value: string) {
  storeToken(value);
  session.set({ token: value.trim() });
}

/** Forgets the token. */
export function signOut(notice?: string) {
  storeToken("");
  session.set({ token: null, notice });
}
