import type { ComponentChildren, Ref, TargetedKeyboardEvent, TargetedSubmitEvent } from "preact";
import { useImperativeHandle, useRef } from "preact/hooks";

import { useAction } from "../action";
import { UserErrors } from "../components/failure";
import {
  AcknowledgeNotificationDocument,
  AnswerClarificationDocument,
  type OutcomeFragment,
  type RequestFragment,
  RespondToApprovalDocument,
  SubmitFeedbackDocument,
} from "../generated/operations";
import { ENDINGS } from "./inbox-kinds";

/** What shortcuts do with the form of an answer: they go where Enter then sends it. */
export type Answering = { choose: (isPositive: boolean) => void };

type Props = {
  request: RequestFragment;
  answering: Ref<Answering>;
  onAnswered: (outcome: OutcomeFragment, sentence: string) => void;
  onRefused: () => void;
};

/** The form that answers a request, by its kind. */
export function Answer(props: Props) {
  switch (props.request.type) {
    case "APPROVAL":
      return <Approval {...props} />;
    case "CLARIFICATION":
      return <Clarification {...props} />;
    case "FEEDBACK":
      return <Feedback {...props} />;
    case "NOTIFICATION":
      return <Acknowledgement {...props} />;
  }
}

/** Tells how an answer was taken; without an outcome it was refused. */
function report({ request, onAnswered, onRefused }: Props, outcome: OutcomeFragment | null | undefined) {
  if (outcome) onAnswered(outcome, `“${request.title}” ${ENDINGS[outcome.status]}.`);
  else onRefused();
}

function named({ request: { id, contentHash } }: Props) {
  return { id, contentHash };
}

/** Enter that is held down must not answer the next request, which nobody has read yet. */
function ignoreHeldEnter(event: KeyboardEvent) {
  if (event.key === "Enter" && event.repeat) event.preventDefault();
}

function Approval(props: Props) {
  const { run, isRunning, errors } = useAction(RespondToApprovalDocument);
  const approve = useRef<HTMLButtonElement>(null);
  const reject = useRef<HTMLButtonElement>(null);
  const comment = useRef<HTMLInputElement>(null);
  useImperativeHandle(props.answering, () => ({
    choose: (isPositive) => (isPositive ? approve : reject).current?.focus(),
  }));
  async function send(approved: boolean) {
    const input = { ...named(props), approved, comment: comment.current?.value || null };
    report(props, (await run({ input }))?.approvalRequest);
  }
  return (
    <form class="answer" onSubmit={(event) => event.preventDefault()}>
      <UserErrors errors={errors} />
      <label>
        Comment (optional)
        <input ref={comment} name="comment" autoComplete="off" />
      </label>
      <div class="buttons" onKeyDown={ignoreHeldEnter}>
        <button ref={approve} type="button" class="primary" disabled={isRunning} onClick={() => send(true)}>
          Approve <kbd>a</kbd>
        </button>
        <button ref={reject} type="button" class="danger" disabled={isRunning} onClick={() => send(false)}>
          Reject <kbd>r</kbd>
        </button>
      </div>
    </form>
  );
}

/** A text that Ctrl-Enter sends. */
function TextForm(props: {
  label: string;
  isRunning: boolean;
  answering: Ref<Answering>;
  onSend: (form: FormData) => void;
  children?: ComponentChildren;
}) {
  const field = useRef<HTMLTextAreaElement>(null);
  useImperativeHandle(props.answering, () => ({
    choose: (isPositive) => isPositive && field.current?.focus(),
  }));
  function submit(event: TargetedSubmitEvent<HTMLFormElement>) {
    event.preventDefault();
    props.onSend(new FormData(event.currentTarget));
  }
  function press(event: TargetedKeyboardEvent<HTMLFormElement>) {
    if (event.key === "Escape") field.current?.blur();
    const sends = event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.repeat;
    if (sends) event.currentTarget.requestSubmit();
  }
  return (
    <form class="answer" onSubmit={submit} onKeyDown={press}>
      <label>
        {props.label}
        <textarea
          ref={field}
          name="text"
          required
        />
      </label>
      {props.children}
      <div class="buttons">
        <button class="primary" disabled={props.isRunning}>
          Send
        </button>
        <span class="hint">or press Ctrl-Enter</span>
      </div>
    </form>
  );
}

function Clarification(props: Props) {
  const { run, isRunning, errors } = useAction(AnswerClarificationDocument);
  async function send(form: FormData) {
    const input = { ...named(props), answer: String(form.get("text")) };
    report(props, (await run({ input }))?.clarificationRequest);
  }
  return (
    <>
      <UserErrors errors={errors} />
      <TextForm label="Your answer" isRunning={isRunning} answering={props.answering} onSend={send} />
    </>
  );
}

function Feedback(props: Props) {
  const { run, isRunning, errors } = useAction(SubmitFeedbackDocument);
  async function send(form: FormData) {
    const rating = Number(form.get("rating")) || null;
    const input = { ...named(props), feedback: { text: String(form.get("text")) }, rating };
    report(props, (await run({ input }))?.feedbackRequest);
  }
  return (
    <>
      <UserErrors errors={errors} />
      <TextForm label="Your opinion" isRunning={isRunning} answering={props.answering} onSend={send}>
        <fieldset class="rating">
          <legend>Rating (optional): 5 is the best</legend>
          {[1, 2, 3, 4, 5].map((rating) => (
            <label key={rating} class="inline">
              <input type="radio" name="rating" value={rating} /> {rating}
            </label>
          ))}
        </fieldset>
      </TextForm>
    </>
  );
}

function Acknowledgement(props: Props) {
  const { run, isRunning, errors } = useAction(AcknowledgeNotificationDocument);
  const button = useRef<HTMLButtonElement>(null);
  useImperativeHandle(props.answering, () => ({
    choose: (isPositive) => isPositive && button.current?.focus(),
  }));
  async function send() {
    report(props, (await run({ input: named(props) }))?.notification);
  }
  return (
    <div class="answer">
      <UserErrors errors={errors} />
      <div class="buttons" onKeyDown={ignoreHeldEnter}>
        <button ref={button} class="primary" disabled={isRunning} onClick={send}>
          Acknowledge <kbd>a</kbd>
        </button>
      </div>
    </div>
  );
}
