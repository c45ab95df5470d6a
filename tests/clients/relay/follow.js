/** Relay over graphql-ws: when a subscription ends in an error, it is requested again. */

import { createRequire } from "node:module";
import { createClient } from "graphql-ws";
import relay from "relay-runtime";
import WebSocket from "ws";
import { headers, url } from "../server.js";
import { forever, next, variables } from "../subscriptions/events.js";

const require = createRequire(import.meta.url);
const graphql = ([text]) => {
  const [, name] = /subscription (\w+)/.exec(text);
  return require(`${process.env.RELAY_ARTIFACTS}/${name}.graphql.js`);
};

const EVENTS = graphql`
  subscription followEventsSubscription($project: ID!, $after: String) {
    events(projectId: $project, after: $after) {
      cursor
      gap {
        after
      }
      event {
        position
        entityType
        action
      }
    }
  }
`;

const socket = createClient({
  url: url.replace("http", "ws"),
  webSocketImpl: WebSocket,
  connectionParams: headers,
  retryAttempts: 0,
});
const subscribe = ({ text: query }, variables) =>
  relay.Observable.create((sink) => socket.subscribe({ query, variables }, sink));
const environment = new relay.Environment({
  network: relay.Network.create(async () => ({}), subscribe),
  store: new relay.Store(new relay.RecordSource()),
});

forever((again) =>
  relay.requestSubscription(environment, {
    subscription: EVENTS,
    variables: { ...variables },
    onNext: next,
    onError: again,
  }),
);
