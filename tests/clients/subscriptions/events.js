/** The subscription of all clients: the events of the project, of which the test gets a line each. */

import { project } from "../server.js";

export const query = `
  subscription Follow($project: ID!, $after: String) {
    events(projectId: $project, after: $after) {
      cursor
      gap {
        after
      }
      event {
        position
        entityType
        action
        after
      }
    }
  }
`;

let cursor = null;

/** The variables at this moment: whoever subscribes again goes on after the last message. */
export const variables = {
  project,
  get after() {
    return cursor;
  },
};

/** Tell the test of a message. */
export function next({ events }) {
  cursor = events.cursor;
  const line = events.gap ? "gap" : (events.event?.position ?? "state");
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

/** Subscribe, and subscribe again whenever the subscription ends. */
export function forever(subscribe) {
  subscribe(() => setTimeout(() => forever(subscribe), 100));
}

/** The options of graphql-ws and graphql-sse that have them connect again soon. */
const soon = () => new Promise((resolve) => setTimeout(resolve, 100));
export const retries = { retryAttempts: 1000, retryWait: soon, retry: soon, shouldRetry: () => true };
