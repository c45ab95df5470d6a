import type { ComponentChildren } from "preact";

import { Json } from "../components/json";
import { formatCount } from "../components/numbers";
import { Shape, inWords, lookOf } from "../components/status";
import type { TaskLineFragment, TaskQuery } from "../generated/operations";
import { Link } from "../router";

/** A task as its page reads it. */
export type Found = NonNullable<TaskQuery["task"]>;

/** A section of the page; `count` is of what it lists. */
export function Part(props: { title: string; count?: number; children: ComponentChildren }) {
  return (
    <section class="panel part">
      <h2>
        {props.title} {props.count !== undefined && <span class="note">{formatCount(props.count)}</span>}
      </h2>
      {props.children}
    </section>
  );
}

/** A JSON value to unfold; nothing if there is none. */
export function Value(props: { title: string; value: unknown; isOpen?: boolean }) {
  const { value } = props;
  const isEmpty = value == null || (typeof value === "object" && Object.keys(value).length === 0);
  if (isEmpty) return null;
  return (
    <details open={props.isOpen}>
      <summary>{props.title}</summary>
      <Json value={value} />
    </details>
  );
}

/** A link to another task, with its state. */
export function TaskLine(props: { task: TaskLineFragment; note?: (string | false)[] }) {
  const { task } = props;
  const note = props.note?.filter(Boolean).join(", ");
  const look = lookOf(task.status, task.blockedReason);
  return (
    <Link class="line" to="/tasks/:id" params={{ id: task.id }}>
      <Shape look={look} />
      <span>
        {task.title} <span class="note">{[inWords(task.status).toLowerCase(), note].filter(Boolean).join(", ")}</span>
      </span>
    </Link>
  );
}

/** How many are not shown. */
export function Rest(props: { shown: number; of: number }) {
  return props.of > props.shown ? <p class="note">and {formatCount(props.of - props.shown)} more</p> : null;
}
