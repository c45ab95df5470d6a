import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

import { useAction } from "../action";
import { connection, interrupted } from "../client";
import { InboxChangesDocument, LogoutDocument, ShellDocument } from "../generated/operations";
import { useLiveQuery } from "../live";
import { Link, usePlace } from "../router";
import { Dialog } from "./dialog";
import { UserErrors } from "./failure";
import { GraphiQL, hasGraphiQL } from "./graphiql";
import { nameOf } from "./person";
import { session, signOut } from "../session";
import { useStore } from "../store";
import { theme, toggleTheme } from "../theme";

type Entry = { path: string; title: string; pages?: string[] };

/** What is around each page: navigation, who is signed in, and whether the page is live. */
export function Shell(props: { navigation: Entry[]; children: ComponentChildren }) {
  const { path } = usePlace();
  const [isOpen, setOpen] = useState(false);
  const menu = useRef<HTMLButtonElement>(null);
  useEffect(() => setOpen(false), [path]);
  const { data } = useLiveQuery({
    query: ShellDocument,
    variables: {},
    changes: InboxChangesDocument,
    changesOf: {},
  });
  const waiting = data?.pendingInteractions.totalCount ?? 0;
  const isAt = ({ path: of, pages = [] }: Entry) =>
    [of, ...pages].some((start) => path === start || (start !== "/" && path.startsWith(`${start}/`)));

  function press(event: KeyboardEvent) {
    if (event.key !== "Escape" || !isOpen || document.querySelector("dialog[open]")) return;
    setOpen(false);
    menu.current?.focus();
  }

  return (
    <div class="shell">
      <a class="skip" href="#main" onClick={skip}>
        Skip to the page
      </a>
      <div class={isOpen ? "side open" : "side"} onKeyDown={press}>
        <div class="brand">
          <Link to="/">Troupe</Link>
          <Connection />
          <button ref={menu} class="menu" aria-expanded={isOpen} aria-controls="menu" onClick={() => setOpen(!isOpen)}>
            Menu{waiting > 0 && <span class="count">{waiting}</span>}
          </button>
        </div>
        <div class="sections" id="menu">
          <nav aria-label="Pages">
            {props.navigation.map((entry) => (
              <Link key={entry.path} to={entry.path} isCurrent={isAt(entry)}>
                {entry.title}
                {entry.path === "/inbox" && waiting > 0 && (
                  <span class="count">
                    {waiting}
                    <span class="unseen"> waiting</span>
                  </span>
                )}
              </Link>
            ))}
          </nav>
          <footer>
            {data && <p class="who">{data.viewer.user ? nameOf(data.viewer.user) : data.viewer.agent?.name}</p>}
            <ThemeButton />
            {hasGraphiQL && <GraphiQL />}
            <SignOut />
          </footer>
        </div>
      </div>
      <main id="main" tabIndex={-1}>
        {props.children}
      </main>
    </div>
  );
}

// The fragment is that of the page, so the link cannot change it.
function skip(event: MouseEvent) {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

function Connection() {
  const isLost = useStore(connection) === "lost";
  const isInterrupted = useStore(interrupted) > 0;
  if (!isLost && !isInterrupted) return null;
  return (
    <span class="lost" role="status">
      {isLost ? "Reconnecting …" : "Not live"}
    </span>
  );
}

function ThemeButton() {
  const other = useStore(theme) === "dark" ? "Light" : "Dark";
  return (
    <button class="plain" onClick={toggleTheme}>
      {other} colours
    </button>
  );
}

const STILL_VALID = "You are signed out here. The access token is still valid.";

/** Revokes the token if it was issued for this session; any other is only forgotten. */
function SignOut() {
  const { token, isIssued } = useStore(session);
  const { run, isRunning, errors, dismiss } = useAction(LogoutDocument);
  const forget = () => signOut(token ?? "", isIssued ? undefined : STILL_VALID);
  const end = async () => (!isIssued || (await run({ input: {} }))) && forget();
  return (
    <>
      <button class="plain" onClick={end} disabled={isRunning}>
        Sign out
      </button>
      {errors.length > 0 && (
        <Dialog title="Your token may still be valid" onClose={dismiss}>
          <UserErrors errors={errors} />
          <p>If it is forgotten here without being revoked, whoever else has it can still use it.</p>
          <div class="buttons">
            <button class="primary" onClick={end}>Try again</button>
            <button onClick={forget}>Forget it here anyway</button>
          </div>
        </Dialog>
      )}
    </>
  );
}
