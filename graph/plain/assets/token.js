// The access token that a page sends along. It comes in the URL's fragment, which no browser sends
// to a server, and is forgotten when the tab is closed.

const KEY = "troupe:token";

const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  keepToken(given);
  // Neither the address bar, nor the history, nor a bookmark is a place for it.
  history.replaceState(null, "", location.pathname + location.search);
}
// Another link, opened where the page already is, changes the fragment and nothing else.
addEventListener("hashchange", () => location.reload());

/** The token, or nothing if none is known. */
export function token() {
  return sessionStorage.getItem(KEY);
}

/**
 * Use this token from now on.
 * @param {string} token
 */
export function keepToken(token) {
  sessionStorage.setItem(KEY, token.trim());
}

/**
 * Send an operation to the API, as whom the token names.
 * @param {RequestInfo | URL} url
 * @param {RequestInit} [init]
 * @returns {Promise<Response>}
 */
export function ask(url, init) {
  const headers = new Headers(init?.headers);
  const known = token();
  if (known && !headers.has("authorization")) headers.set("authorization", `Bearer ${known}`);
  return fetch(url, { ...init, headers, credentials: "omit" });
}
