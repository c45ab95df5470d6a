/** Who is signed in: the access token, which token.js stores until the tab is closed.
 *
 * It is not in localStorage, where it would stay on the disk for the 30 days that it is valid. Instead,
 * a new tab gets it from another tab of this origin.
 */

import { storeToken, token } from "../../plain/assets/token.js";
import { Store } from "./store";

/** The token, or null and what to tell the person who must sign in. */
export type Session = { token: string | null; notice?: string | undefined };

export const session = new Store<Session>({ token: token() });

/** Uses a token from now on. */
export function signIn(value: string) {
  storeToken(value);
  session.set({ token: token() });
}

/** Forgets the token, in all tabs. */
export function signOut(notice?: string) {
  const ended = token();
  storeToken("");
  session.set({ token: null, notice });
  if (ended) tabs.postMessage({ ended } satisfies Message);
}

type Message = { wanted: true } | { given: string } | { ended: string };

const tabs = new BroadcastChannel("troupe:session");
tabs.addEventListener("message", ({ data }: MessageEvent<Message>) => {
  const own = token();
  if ("wanted" in data && own) tabs.postMessage({ given: own } satisfies Message);
  if ("given" in data && !own) signIn(data.given);
  if ("ended" in data && data.ended === own) signOut();
});
if (!token()) tabs.postMessage({ wanted: true } satisfies Message);
