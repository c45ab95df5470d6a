import { useState } from "preact/hooks";

import { useAction } from "../action";
import { Dialog } from "../components/dialog";
import { UserErrors } from "../components/failure";
import { RemoveTaskDependencyDocument, type TaskLineFragment } from "../generated/operations";

/** A button that, after a question, lets a task no longer wait for another one. */
export function RemoveDependency(props: {
  task: { id: string; title: string };
  dependency: TaskLineFragment;
  onRefused: () => void;
}) {
  const { task, dependency, onRefused } = props;
  const [isAsked, setAsked] = useState(false);
  const { run, isRunning, errors } = useAction(RemoveTaskDependencyDocument);
  async function remove() {
    setAsked(false);
    const done = await run({ input: { dependentId: task.id, dependencyId: dependency.id } });
    if (!done) onRefused();
  }
  return (
    <>
      <button class="plain" disabled={isRunning} onClick={() => setAsked(true)}>
        Remove<span class="unseen"> the dependency on {dependency.title}</span>
      </button>
      <UserErrors errors={errors} />
      {isAsked && (
        <Dialog title="Remove this dependency?" onClose={() => setAsked(false)}>
          <p>
            “{task.title}” then no longer waits for “{dependency.title}”.
          </p>
          <div class="buttons">
            <button class="danger" onClick={() => void remove()}>
              Remove the dependency
            </button>
            <button onClick={() => setAsked(false)}>Leave it</button>
          </div>
        </Dialog>
      )}
    </>
  );
}
