// The plain page: an operation, its variables, and the response of the server.

import { send, storeToken, token } from "./token.js";

const form = /** @type {HTMLFormElement} */ (document.querySelector("form"));
const output = /** @type {HTMLElement} */ (document.querySelector("pre"));

/** @param {string} name */
function field(name) {
  return /** @type {HTMLInputElement | HTMLTextAreaElement} */ (form.elements.namedItem(name));
}

/** Sends the operation of the form, and returns the response as formatted text. */
async function run() {
  let variables;
  try {
    variables = JSON.parse(field("variables").value || "{}");
  } catch (error) {
    return `The variables are not valid JSON: ${error}`;
  }
  const response = await send("/graphql", {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json" },
    body: JSON.stringify({ query: field("query").value, variables }),
  });
  const text = await response.text();
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

field("token").value = token() ?? "";

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  storeToken(field("token").value);
  output.textContent = "…";
  try {
    output.textContent = await run();
  } catch (error) {
    output.textContent = `The server did not respond: ${error}`;
  }
});

form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
