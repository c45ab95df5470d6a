/** The server that the test has started, and the project that it has made there. */

const { TROUPE_URL, TROUPE_TOKEN, TROUPE_PROJECT } = process.env;

export const url = `${TROUPE_URL}/graphql`;
export const headers = { authorization: `Bearer ${TROUPE_TOKEN}` };
export const project = TROUPE_PROJECT;

/** The data that an operation answers, by nothing but HTTP. */
export async function ask(query) {
  const response = await fetch(url, {
    method: "POST",
    headers: { ...headers, "content-type": "application/json" },
    body: JSON.stringify({ query }),
  });
  return (await response.json()).data;
}

/** Tell the test what was found. */
export function report(found) {
  process.stdout.write(JSON.stringify(found));
}
