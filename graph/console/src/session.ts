/** Who is signed in: the access token, which token.js stores until the tab is closed.
 *
 * It is not in localStorage, where it would stay after that for the 30 days that it is valid. Instead, a
 * new tab gets it from another tab of this origin.
 */

import { storeToken, token } from "../../plain/assets/token.js";
import { Store } from "./store";

/** How long a new tab waits for the token of another one, in milliseconds. */
const PATIENCE = 1_000;

/** The token that this console got by a password; any other was made elsewhere, for other uses too. */
const ISSUED = "troupe:issued";

/** The token, or null and what to tell the person who must sign in. */
export type Session = { token: string | null; isIssued: boolean; notice?: string | undefined };

export const session = new Store<Session>(present());

function present(notice?: string): Session {
  const own = token();
  return { token: own, isIssued: own !== null && sessionStorage.getItem(ISSUED) === own, notice };
}

/** Uses a token from now on; `isIssued` if it was made for this session, which then ends with it. */
export function signIn(value: string, { isIssued = false } = {}) {
  storeToken(value);
  if (isIssued) sessionStorage.setItem(ISSUED, value);
  else sessionStorage.removeItem(ISSUED);
  session.set(present());
}

/** Forgets a token, in all tabs that use it. */
export function signOut(ended: string, notice?: string) {
  if (token() !== ended) return;
  storeToken("");
  sessionStorage.removeItem(ISSUED);
  session.set(present(notice));
  tabs.postMessage({ ended } satisfies Message);
}

/** A request for a token has a number, which its answers repeat: they are for one tab only. */
type Message = { wanted: string } | { given: string; isIssued: boolean; to: string } | { ended: string };

const tabs = new BroadcastChannel("troupe:session");
tabs.addEventListener("message", ({ data }: MessageEvent<Message>) => {
  const { token: own, isIssued } = session.get();
  if ("wanted" in data && own) tabs.postMessage({ given: own, isIssued, to: data.wanted } satisfies Message);
  if ("given" in data && data.to === wanted && !own) signIn(data.given, data);
  if ("ended" in data) signOut(data.ended);
});

/** The number of this tab's request; null if it has none, or none any longer. */
let wanted: string | null = null;
if (!token()) {
  wanted = crypto.getRandomValues(new Uint32Array(4)).join("-");
  tabs.postMessage({ wanted } satisfies Message);
  setTimeout(() => (wanted = null), PATIENCE);
}
