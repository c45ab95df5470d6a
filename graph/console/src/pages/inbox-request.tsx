import type { Ref } from "preact";
import { useState } from "preact/hooks";

import { Content, Json } from "../components/json";
import { nameOf } from "../components/person";
import { StatusBadge } from "../components/status";
import { Time } from "../components/time";
import { visible } from "../exact";
import type { OutcomeFragment, RequestFragment } from "../generated/operations";
import { Link } from "../router";
import { Answer, type Answering } from "./inbox-answer";
import { ENDINGS, KINDS } from "./inbox-kinds";

/** A request in full: who asks what, exactly what an answer is about, and the answer. */
export function Request(props: {
  request: RequestFragment;
  /** How it ended, if that was told before it was read again. */
  ending: OutcomeFragment | undefined;
  answering: Ref<Answering>;
  onAnswered: (outcome: OutcomeFragment, sentence: string) => void;
  onRefused: () => void;
}) {
  const { request } = props;
  const outcome = props.ending ?? request;
  const [isRefused, setRefused] = useState(false);
  const asker = request.askedByAgent ?? request.agent;
  const approvals = request.answers.filter(({ outcome }) => outcome === "APPROVED").length;
  return (
    <article class="panel request" aria-label={request.title}>
      <header>
        <p class="note">
          {KINDS[request.type].word}
          {"level" in request && ` (${request.level.toLowerCase()})`} in{" "}
          <Link to="/projects/:id" params={{ id: request.project.id }}>
            {request.project.name}
          </Link>
        </p>
        <h2>{visible(request.title)}</h2>
        <p class="note">
          {asker ? `${asker.name}, an agent,` : request.askedByUser ? nameOf(request.askedByUser) : "Somebody"}{" "}
          {request.type === "NOTIFICATION" ? "wrote" : "asked"} <Time at={request.createdAt} />
          {request.task && (
            <>
              {" "}
              about{" "}
              <Link to="/tasks/:id" params={{ id: request.task.id }}>
                {request.task.title}
              </Link>
              {request.blocksTask && outcome.status === "PENDING" && ", which waits for the answer"}
            </>
          )}
          .
          {request.expiresAt && (
            <>
              {" "}
              It expires <Time at={request.expiresAt} />; {EXPIRY[request.onExpiry]}.
            </>
          )}
        </p>
      </header>
      <Content value={request.content} />
      <details>
        <summary>The whole request, as it was sent</summary>
        <Json value={{ title: request.title, content: request.content }} />
        <p class="note">
          The answer names the SHA-256 of the title and this content: <code>{request.contentHash}</code>. If
          they change, the answer is refused.
        </p>
      </details>
      {"requiredApprovals" in request && request.requiredApprovals > 1 && (
        <p>
          {approvals} of {request.requiredApprovals} approvals.
        </p>
      )}
      {request.answers.length > 0 && (
        <ul class="answers">
          {request.answers.map((answer) => (
            <li key={answer.id}>
              <StatusBadge status={answer.outcome} /> {answer.user ? nameOf(answer.user) : "Somebody"}{" "}
              <Time at={answer.answeredAt} />
              {answer.comment && <p class="text">{answer.comment}</p>}
            </li>
          ))}
        </ul>
      )}
      {outcome.status === "PENDING" ? (
        <Answer
          request={request}
          answering={props.answering}
          onAnswered={props.onAnswered}
          onRefused={() => {
            setRefused(true);
            props.onRefused();
          }}
        />
      ) : (
        <p class="ended" role="status">
          <StatusBadge status={outcome.status} />{" "}
          {isRefused && "Your answer came too late. "}This request {ENDINGS[outcome.status]}
          {outcome.respondedBy && ` by ${nameOf(outcome.respondedBy)}`}{" "}
          {outcome.respondedAt && <Time at={outcome.respondedAt} />}.
        </p>
      )}
    </article>
  );
}

const EXPIRY: Record<RequestFragment["onExpiry"], string> = {
  KEEP: "the task then stays blocked",
  FAIL: "the task then fails",
  RELEASE: "the task then goes on without an answer",
};
