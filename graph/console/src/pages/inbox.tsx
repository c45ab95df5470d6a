import { useEffect, useRef, useState } from "preact/hooks";

import { Empty } from "../components/empty";
import { Frame, focusTitle } from "../components/frame";
import { Loaded } from "../components/loaded";
import { Pager, pageOf } from "../components/pager";
import { Shortcuts } from "../components/shortcuts";
import { Time } from "../components/time";
import {
  InboxChangesDocument,
  InboxDocument,
  type InboxQuery,
  type OutcomeFragment,
  type RequestFragment,
} from "../generated/operations";
import { useLiveQuery } from "../live";
import { Link, href, navigate } from "../router";
import type { Answering } from "./inbox-answer";
import { Request } from "./inbox-request";
import { KINDS } from "./inbox-kinds";

const SIZE = 20;

/** What waits for an answer of the person who is signed in: a list, and one request in full. */
export function Inbox(props: { query: URLSearchParams }) {
  const { query } = props;
  // A link may lead to a request that is not on the first page, or is not in the inbox any more.
  const [named, setNamed] = useState(query.get("of"));
  const [endings, setEndings] = useState<Record<string, OutcomeFragment>>({});
  const inbox = useLiveQuery({
    query: InboxDocument,
    variables: { ...pageOf(query, SIZE), named: named ?? "", isNamed: named !== null },
    changes: InboxChangesDocument,
    changesOf: {},
    onChange: ({ inbox: { interaction } }) => {
      if (interaction && interaction.status !== "PENDING") end(interaction);
    },
  });
  // An id that is none is like one of no request: the list is there in any case.
  const errors = inbox.error?.graphQLErrors ?? [];
  const isNamedAlone = errors.length > 0 && errors.every(({ path }) => path?.[0] === "named");
  const end = (outcome: OutcomeFragment) => setEndings((known) => ({ ...known, [outcome.id]: outcome }));
  return (
    <Loaded of={isNamedAlone ? { ...inbox, error: undefined } : inbox}>
      {(data) => (
        <Requests
          data={data}
          query={query}
          endings={endings}
          onEnd={end}
          read={(id) => {
            setNamed(id);
            inbox.read();
          }}
        />
      )}
    </Loaded>
  );
}

function Requests(props: {
  data: InboxQuery;
  query: URLSearchParams;
  endings: Record<string, OutcomeFragment>;
  onEnd: (outcome: OutcomeFragment) => void;
  /** Reads the list again, and a request even if it is no longer in it. */
  read: (id: string) => void;
}) {
  const { data, query, endings } = props;
  const { pageInfo, totalCount } = data.pendingInteractions;
  // What has ended leaves the list at once, before that is read again.
  const nodes = data.pendingInteractions.nodes.filter(({ id }) => !(id in endings));
  const of = query.get("of");
  const known = [...data.pendingInteractions.nodes, data.named].find((request) => request?.id === of);
  // Who reads a request must not suddenly have another in front of them: it stays until they move on.
  const last = useRef<RequestFragment | null>(null);
  const request = known ?? (last.current?.id === of ? last.current : null);
  last.current = request;
  const selected = useRef(of);
  selected.current = of;
  const answering = useRef<Answering | null>(null);
  const [said, say] = useState("");
  const list = useRef<HTMLUListElement>(null);

  const linkTo = (id: string | null) => ({ ...Object.fromEntries(query), of: id });
  const select = (id: string | null) => navigate(href("/inbox", {}, linkTo(id)), { replace: true });
  const first = nodes[0]?.id;
  useEffect(() => {
    if (request) return;
    if (of) say("The request of this address does not exist, or you may not see it.");
    if (of || first) select(first ?? null);
  }, [request, first, of]);

  /** Selects a request and its line of the list, where the keyboard then is; without one, at the title. */
  function show(id: string | undefined) {
    select(id ?? null);
    if (id) list.current?.querySelector<HTMLElement>(`[data-id="${CSS.escape(id)}"] a`)?.focus();
    else focusTitle();
  }

  function move(step: number) {
    const at = nodes.findIndex(({ id }) => id === of);
    const next = nodes[Math.min(Math.max(at + step, 0), nodes.length - 1)];
    if (!next) return;
    say("");
    show(next.id);
  }

  // Until the server has answered, the person may have moved on to another request, which then stays.
  function answered(outcome: OutcomeFragment, sentence: string) {
    props.onEnd(outcome);
    say(sentence);
    const at = nodes.findIndex(({ id }) => id === outcome.id);
    if (selected.current === outcome.id) show((nodes[at + 1] ?? nodes[at - 1])?.id);
    props.read(outcome.id);
  }

  function refused({ id, title }: RequestFragment) {
    if (selected.current !== id) say(`Your answer to “${title}” was not taken.`);
    props.read(id);
  }

  const isOpen = request && request.status === "PENDING" && !endings[request.id];
  const choose = (isPositive: boolean) => () => isOpen && answering.current?.choose(isPositive);
  const keys = [
    { key: "j", does: "Next request", run: () => move(1) },
    { key: "k", does: "Previous request", run: () => move(-1) },
    { key: "a", does: "Go to Approve or Acknowledge, which Enter then presses, or to the text of the answer", run: choose(true) },
    { key: "r", does: "Go to Reject, which Enter then presses", run: choose(false) },
    { key: "Enter", does: "The same as a", run: choose(true) },
    { key: "Ctrl-Enter", does: "Send the text of the answer", run: () => {} },
  ];
  return (
    <Frame title={totalCount > 0 ? `Inbox (${totalCount})` : "Inbox"} actions={<Shortcuts keys={keys} />}>
      <p class="said" role="status">
        {said}
      </p>
      {nodes.length === 0 && !request ? (
        <Empty title="Nothing waits for you">
          <p>
            Agents ask with <code>requestApproval</code>, <code>requestClarification</code> and{" "}
            <code>requestFeedback</code>. What they ask in your projects appears here at once.
          </p>
        </Empty>
      ) : (
        <div class="inbox">
          <div class="requests">
            {nodes.length === 0 ? (
              <p class="note">Nothing else waits for you.</p>
            ) : (
              <ul ref={list} aria-label="Requests">
                {nodes.map((each) => (
                  <li key={each.id} data-id={each.id}>
                    <Link to="/inbox" query={linkTo(each.id)} isCurrent={each.id === of}>
                      <Entry request={each} />
                    </Link>
                  </li>
                ))}
              </ul>
            )}
            <Pager pageInfo={pageInfo} label="Pages of requests" />
          </div>
          {request && (
            <Request
              // Another content is another question: nothing of the answer is kept.
              key={request.id + request.contentHash}
              request={request}
              ending={endings[request.id]}
              answering={answering}
              onAnswered={answered}
              onRefused={() => refused(request)}
            />
          )}
        </div>
      )}
    </Frame>
  );
}

function Entry({ request }: { request: RequestFragment }) {
  return (
    <>
      <strong>{request.title}</strong>
      <span class="note">
        {KINDS[request.type].word} · {request.project.name} · <Time at={request.createdAt} />
        {request.priority > 3 && <> · urgent</>}
      </span>
    </>
  );
}
