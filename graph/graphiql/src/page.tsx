import { explorerPlugin } from "@graphiql/plugin-explorer";
import { createGraphiQLFetcher } from "@graphiql/toolkit";
import { GraphiQL, HISTORY_PLUGIN } from "graphiql";
import { createClient } from "graphql-ws";
import { useMemo, useState } from "react";
import { createRoot } from "react-dom/client";

import { ask, token } from "../../plain/assets/token.js";
import { examples } from "./examples";
import { TokenField } from "./token-field";
import { useLenientVariables } from "./variables";
import "./workers";

const plugins = [HISTORY_PLUGIN, explorerPlugin()];

function Page() {
  useLenientVariables();
  const [isRefused, setRefused] = useState(token() === null);
  const fetcher = useMemo(
    () =>
      createGraphiQLFetcher({
        url: "/graphql",
        enableIncrementalDelivery: false,
        // Opened when somebody subscribes, and closed when nobody does any more.
        wsClient: createClient({
          url: `${location.origin.replace(/^http/, "ws")}/graphql`,
          connectionParams: () => (token() ? { Authorization: `Bearer ${token()}` } : {}),
        }),
        fetch: async (url, init) => {
          const response = await ask(url, init);
          if ((await response.clone().text()).includes('"UNAUTHENTICATED"')) setRefused(true);
          return response;
        },
      }),
    [],
  );
  return (
    <GraphiQL
      fetcher={fetcher}
      plugins={plugins}
      defaultTabs={examples}
      defaultEditorToolsVisibility="variables"
      // A token that somebody writes there must not outlive the tab either.
      shouldPersistHeaders={false}
    >
      <GraphiQL.Logo>Troupe</GraphiQL.Logo>
      <GraphiQL.Footer>
        <TokenField isRefused={isRefused} setRefused={setRefused} />
      </GraphiQL.Footer>
    </GraphiQL>
  );
}

createRoot(document.getElementById("page")!).render(<Page />);
