// The access token of the pages. It comes from the URL's fragment, which browsers do not send to the
// server, and is stored until the tab is closed.

const KEY = "troupe:token";
const QUESTION = "You are signed in. Use the access token of this link instead?";

const inURL = () => new URLSearchParams(location.hash.slice(1)).get("token");
const fromURL = inURL();
if (fromURL) {
  // Anybody can make a link: it must not make a person work as somebody else without their knowledge.
  if (!token() || token() === fromURL.trim() || confirm(QUESTION)) storeToken(fromURL);
  // The token must not stay in the address bar, the history or a bookmark.
  history.replaceState(null, "", location.pathname + location.search);
}
// A link with another token only changes the fragment if the page is already open.
addEventListener("hashchange", () => {
  if (inURL()) location.reload();
});

/** The stored token, or null. */
export function token() {
  return sessionStorage.getItem(KEY) || null;
}

/**
 * Stores the token for this tab.
 * @param {string} token
 */
export function storeToken(token) {
  sessionStorage.setItem(KEY, token.trim());
}

/**
 * Sends an operation to the API with the stored token.
 * @param {RequestInfo | URL} url
 * @param {RequestInit} [init]
 * @returns {Promise<Response>}
 */
export function send(url, init) {
  const headers = new Headers(init?.headers);
  const stored = token();
  if (stored && !headers.has("authorization")) headers.set("authorization", `Bearer ${stored}`);
  return fetch(url, { ...init, headers, credentials: "omit" });
}
