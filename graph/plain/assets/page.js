// The plain page: an operation, its variables, and what the server answers.

import { ask, keepToken, token } from "./token.js";

const form = /** @type {HTMLFormElement} */ (document.querySelector("form"));
const answer = /** @type {HTMLElement} */ (document.querySelector("pre"));

/** @param {string} name */
function field(name) {
  return /** @type {HTMLInputElement | HTMLTextAreaElement} */ (form.elements.namedItem(name));
}

/** The answer to what the form holds, as text to be shown. */
async function run() {
  let variables;
  try {
    variables = JSON.parse(field("variables").value || "{}");
  } catch (error) {
    return `The variables are no JSON: ${error}`;
  }
  const response = await ask("/graphql", {
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
  keepToken(field("token").value);
  answer.textContent = "…";
  try {
    answer.textContent = await run();
  } catch (error) {
    answer.textContent = `The server does not answer: ${error}`;
  }
});

form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
