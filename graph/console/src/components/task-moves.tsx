import { useQuery } from "@urql/preact";
import type { TargetedSubmitEvent } from "preact";
import { useState } from "preact/hooks";

import { type UserError, useAction } from "../action";
import {
  AgentChoicesDocument,
  CancelTaskDocument,
  ReassignTaskDocument,
  RetryTaskDocument,
  type TaskStateFragment,
  TransitionTaskDocument,
} from "../generated/operations";
import { type Move, TARGETS, movesOf } from "../moves";
import { Dialog } from "./dialog";
import { UserErrors } from "./failure";
import { Loaded } from "./loaded";

const WORDS: Record<Move, { label: string; title: string }> = {
  hold: { label: "Hold", title: "No agent gets it until it is released" },
  release: { label: "Release", title: "It is to be done again" },
  retry: { label: "Try again", title: "It is to be done after all, and what was skipped because of it" },
  reopen: { label: "Reopen", title: "It is to be done again" },
  complete: { label: "Complete", title: "It is done; what waits for it goes on" },
  reassign: { label: "Reassign …", title: "Choose the agent that does it" },
  cancel: { label: "Cancel …", title: "It is not to be done, nor are its subtasks" },
};

/** The buttons for what may be done with a task by hand, and why something was not done.
 *
 * Each names the version of the task that is shown, so that it does nothing if somebody else has
 * changed the task; `onConflict` is called then, to show the task as it is now.
 */
export function TaskMoves(props: { task: TaskStateFragment; projectId: string; onConflict: () => void }) {
  const { task } = props;
  const [asked, setAsked] = useState<"cancel" | "reassign" | null>(null);
  const transition = useAction(TransitionTaskDocument);
  const retry = useAction(RetryTaskDocument);
  const cancel = useAction(CancelTaskDocument);
  const reassign = useAction(ReassignTaskDocument);
  const actions = [transition, retry, cancel, reassign];
  const errors = actions.flatMap((action) => action.errors);
  const isRunning = actions.some((action) => action.isRunning);
  const named = { id: task.id, expectedVersion: task.version };

  async function run(change: Promise<unknown>) {
    setAsked(null);
    // Whatever kept it from being done, the task may not be as it is shown.
    if ((await change) === null) props.onConflict();
  }

  function begin(move: Move) {
    for (const action of actions) action.dismiss();
    if (move === "cancel" || move === "reassign") return setAsked(move);
    if (move === "retry") return void run(retry.run({ input: named }));
    void run(transition.run({ input: { ...named, to: TARGETS[move] } }));
  }

  return (
    <>
      <div class="buttons" role="group" aria-label="Actions">
        {movesOf(task).map((move) => (
          <button
            key={move}
            class={move === "cancel" ? "danger" : undefined}
            title={WORDS[move].title}
            disabled={isRunning}
            onClick={() => begin(move)}
          >
            {WORDS[move].label}
          </button>
        ))}
      </div>
      <UserErrors errors={errors.map(explained)} />
      {asked === "cancel" && (
        <Dialog title="Cancel this task?" onClose={() => setAsked(null)}>
          <p>
            {task.status === "IN_PROGRESS"
              ? "Its agent is asked to stop, and learns it from its next heartbeat. "
              : "It is not to be done. "}
            Its subtasks that have not ended are cancelled too.
          </p>
          <div class="buttons">
            <button class="danger" onClick={() => void run(cancel.run({ input: named }))}>
              Cancel the task
            </button>
            <button onClick={() => setAsked(null)}>Leave it</button>
          </div>
        </Dialog>
      )}
      {asked === "reassign" && (
        <Reassign
          projectId={props.projectId}
          agentId={task.agent?.id ?? ""}
          onClose={() => setAsked(null)}
          onChoose={(agentId) => void run(reassign.run({ input: { ...named, agentId } }))}
        />
      )}
    </>
  );
}

function explained(error: UserError): UserError {
  if (error.code !== "CONFLICT") return error;
  return { ...error, message: "Not done: somebody changed this task meanwhile. This is how it is now; decide anew." };
}

function Reassign(props: {
  projectId: string;
  agentId: string;
  onClose: () => void;
  onChoose: (agentId: string | null) => void;
}) {
  const [result, execute] = useQuery({ query: AgentChoicesDocument, variables: { projectId: props.projectId } });
  function submit(event: TargetedSubmitEvent<HTMLFormElement>) {
    event.preventDefault();
    props.onChoose(String(new FormData(event.currentTarget).get("agent")) || null);
  }
  return (
    <Dialog title="Reassign this task" onClose={props.onClose}>
      <Loaded of={{ ...result, read: () => execute({ requestPolicy: "network-only" }) }}>
        {({ agents: { nodes } }) => (
          <form class="dialog-form" onSubmit={submit}>
            <label>
              Agent
              <select name="agent">
                <option value="" selected={props.agentId === ""}>
                  Any agent that fits
                </option>
                {nodes.map(({ id, name, type }) => (
                  <option key={id} value={id} selected={id === props.agentId}>
                    {name} ({type})
                  </option>
                ))}
              </select>
            </label>
            <div class="buttons">
              <button class="primary">Reassign</button>
              <button type="button" onClick={props.onClose}>
                Leave it
              </button>
            </div>
          </form>
        )}
      </Loaded>
    </Dialog>
  );
}
