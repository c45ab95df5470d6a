/** What the audits of GraphQL over HTTP say that does not pass, and how many of them there are. */

import { auditServer } from "graphql-http";

import { headers, report, url } from "./server.js";

const results = await auditServer({
  url,
  fetchFn: (input, init) => fetch(input, { ...init, headers: { ...init?.headers, ...headers } }),
});
report({
  count: results.length,
  found: results
    .filter((result) => result.status !== "ok")
    .map(({ id, name, status, reason }) => ({ id, name, status, reason })),
});
