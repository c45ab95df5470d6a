// The console, for people who supervise agents. It uses the public API only.
//
// How a page is made:
// - `pages/NAME.tsx` is the page, `pages/NAME.graphql` its operations. `npm run codegen` types them;
//   import their documents from "../generated/operations". Names of operations are unique.
// - A page is one line in PAGES, and one in NAVIGATION if it is reached from everywhere.
// - A page reads once (`useLiveQuery` in live.ts): one query, small pages (`first:`), and a
//   subscription that tells when it must be read again. Nothing polls (except for heartbeats, which
//   are no events: see agents.tsx). A subscription selects `cursor` and takes `$after: String`;
//   client.ts goes on after the last message. What is null after a gap tells to read again.
// - The cache is normalised by id: select `id` of each object, and an object that a mutation or a
//   message returns is shown everywhere as it is now.
// - A change is `useAction` (action.ts); `<UserErrors>` shows why it was not done. Its buttons are shown to
//   those who may edit the project (`useEditable` in rights.ts).
// - What is chosen on a page (filters, tabs, cursors) is in the query of its URL (router.tsx), so that
//   a link leads there again.
// - Each page is a `<Frame title=…>`, around `<Loaded of=…>`. Other parts are in components/: states
//   are `<StatusBadge>` (colour and shape), moments `<Time>`, lists without entries `<Empty>`.
// - Styles are in style.css and what it imports, over its custom properties; no page sets colours of
//   its own. The content security policy forbids inline styles in HTML and inline scripts.
// - Everything works by keyboard, at a width of 390 pixels, in dark and in light.

import { Provider } from "@urql/preact";
import { useEffect, useMemo } from "preact/hooks";

import { createClient } from "./client";
import { Shell } from "./components/shell";
import { Agents } from "./pages/agents";
import { Conversation } from "./pages/conversation";
import { Conversations } from "./pages/conversations";
import { Events } from "./pages/events";
import { Inbox } from "./pages/inbox";
import { Login } from "./pages/login";
import { Missing } from "./pages/missing";
import { Project } from "./pages/project";
import { Projects } from "./pages/projects";
import { Task } from "./pages/task";
import { Usage } from "./pages/usage";
import { type Page, match, usePlace } from "./router";
import { session } from "./session";
import { useStore } from "./store";
import "./theme";

const PAGES: Page[] = [
  { path: "/", view: Projects },
  { path: "/projects/:id", view: Project },
  { path: "/tasks/:id", view: Task },
  { path: "/inbox", view: Inbox },
  { path: "/conversations", view: Conversations },
  { path: "/conversations/:id", view: Conversation },
  { path: "/agents", view: Agents },
  { path: "/usage", view: Usage },
  { path: "/events", view: Events },
];

const NAVIGATION = [
  { path: "/", title: "Projects", pages: ["/projects", "/tasks"] },
  { path: "/inbox", title: "Inbox" },
  { path: "/conversations", title: "Conversations" },
  { path: "/agents", title: "Agents" },
  { path: "/usage", title: "Usage" },
  { path: "/events", title: "Events" },
];

/** The whole console: the login, or the page of the URL within the shell. */
export function App() {
  const { token, notice } = useStore(session);
  const { client, close } = useMemo(() => createClient(token ?? ""), [token]);
  useEffect(() => close, [close]);
  return (
    <Provider value={client}>
      {token === null ? <Login notice={notice} /> : <Shell navigation={NAVIGATION}><Routed /></Shell>}
    </Provider>
  );
}

function Routed() {
  const { path, query } = usePlace();
  const found = match(PAGES, path);
  if (!found) return <Missing />;
  const { page, params } = found;
  // Another object is another page: it begins anew.
  return <page.view key={path} params={params} query={query} />;
}
