import { explorerPlugin } from "@graphiql/plugin-explorer";
import { createGraphiQLFetcher } from "@graphiql/toolkit";
import { GraphiQL, HISTORY_PLUGIN } from "graphiql";
import { createClient } from "graphql-ws";
import { useMemo, useState } from "react";
import { createRoot } from "react-dom/client";

import { send, token } from "../../plain/assets/token.js";
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
        // It connects for the first subscription, and disconnects after the last one.
        wsClient: createClient({
          url: `${location.origin.replace(/^http/, "ws")}/graphql`,
          connectionParams: () => (token() ? { Authorization: `Bearer ${token()}` } : {}),
        }),
        fetch: async (url, init) => {
          const response = await send(url, init);
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
      // A token in the headers must not be stored longer than the tab is open.
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
