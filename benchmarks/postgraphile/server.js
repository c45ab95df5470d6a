// PostGraphile 5 on the same tables: its preset for new projects, a pool of the same size, and no
// development features.

import { createServer } from "node:http";

import { postgraphile } from "postgraphile";
import { jsonParse } from "postgraphile/@dataplan/json";
import { makePgService } from "postgraphile/adaptors/pg";
import { context, lambda, listen } from "postgraphile/grafast";
import { grafserv } from "postgraphile/grafserv/node";
import { PostGraphileAmberPreset } from "postgraphile/presets/amber";
import { extendSchema, gql } from "postgraphile/utils";

const [url, port] = process.argv.slice(2);

// A subscription as its documentation shows one. A trigger notifies of the ids of changed tasks.
const subscriptions = extendSchema((build) => {
  const { tasks } = build.pgResources;
  return {
    typeDefs: gql`
      extend type Subscription {
        taskUpdated(id: UUID!): TaskUpdate
      }
      type TaskUpdate {
        task: Task
      }
    `,
    objects: {
      Subscription: {
        plans: {
          taskUpdated: {
            subscribePlan(_$root, { $id }) {
              const topic = lambda($id, (id) => `task:${id}`);
              return listen(context().get("pgSubscriber"), topic, jsonParse);
            },
            plan($event) {
              return $event;
            },
          },
        },
      },
      TaskUpdate: {
        plans: {
          task($event) {
            return tasks.get({ id: $event.get("id") });
          },
        },
      },
    },
  };
});

const server = createServer();
const service = postgraphile({
  extends: [PostGraphileAmberPreset],
  pgServices: [
    makePgService({ connectionString: url, schemas: ["public"], poolConfig: { max: 10 } }),
  ],
  plugins: [subscriptions],
  grafserv: { graphiql: false, watch: false, websockets: true },
}).createServ(grafserv);
await service.addTo(server);
server.listen(Number(port), "127.0.0.1");
