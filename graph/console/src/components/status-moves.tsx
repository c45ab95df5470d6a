import { useState } from "preact/hooks";

import type { UserError } from "../action";
import type { StatusMove } from "../moves";
import { Dialog } from "./dialog";
import { UserErrors } from "./failure";

/** The buttons that change the status of a project or an agent, and why one did nothing. */
export function StatusMoves<Status>(props: {
  /** Whose status it is. */
  name: string;
  version: number;
  moves: readonly StatusMove<Status>[];
  /** Sets a status if the version is that; resolves to the new version, or to null if it was not done. */
  change: (to: Status, expectedVersion: number) => Promise<number | null>;
  /** Is called if something was not done, to show the object as it is now. */
  onRefused: () => void;
  isRunning: boolean;
  errors: readonly UserError[];
}) {
  const [asked, ask] = useState<StatusMove<Status> | null>(null);

  async function run({ to }: StatusMove<Status>) {
    ask(null);
    let version: number | null = props.version;
    for (const each of to) if (version !== null) version = await props.change(each, version);
    if (version === null) props.onRefused();
  }

  return (
    <>
      {props.moves.map((move) => (
        <button
          key={move.label}
          class={move.isLoss ? "danger" : undefined}
          title={move.title}
          aria-label={`${move.label.replace(" …", "")} ${props.name}`}
          disabled={props.isRunning}
          onClick={() => (move.question ? ask(move) : void run(move))}
        >
          {move.label}
        </button>
      ))}
      <UserErrors errors={props.errors} />
      {asked && (
        <Dialog title={`${asked.label.replace(" …", "")} ${props.name}?`} onClose={() => ask(null)}>
          <p>{asked.question}</p>
          <div class="buttons">
            <button class={asked.isLoss ? "danger" : "primary"} onClick={() => void run(asked)}>
              {asked.label.replace(" …", "")}
            </button>
            <button onClick={() => ask(null)}>Leave it</button>
          </div>
        </Dialog>
      )}
    </>
  );
}
