/** graphql-sse, which does the same over event streams, in either of its modes. */

import { createClient } from "graphql-sse";
import { headers, url } from "../server.js";
import { next, query, retries, variables } from "./events.js";

const singleConnection = process.argv[2] === "single";
const client = createClient({ ...retries, singleConnection, url, headers });
client.subscribe({ query, variables }, { next: ({ data }) => next(data), error: console.error, complete() {} });
