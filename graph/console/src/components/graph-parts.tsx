import type { Box, Column, GraphTask, Layout } from "../layout";
import { href } from "../router";
import { sized } from "./graph-frame";
import { formatCount } from "./numbers";
import { type Look, Shape, isToDo, lookOfTask, stateInWords } from "./status";

/** The lines of the graph; those between boxes that are `around` are marked. */
export function Lines(props: { layout: Layout; around: ReadonlySet<string> | null }) {
  const { layout, around } = props;
  return (
    <svg class="lines" width={layout.width} height={layout.height} aria-hidden="true">
      {layout.lines.map((line) => {
        const isAround = around?.has(line.from) && around.has(line.to);
        const kinds = [line.kind, line.isCritical && "critical", isAround && "around"];
        return <path key={line.key} class={kinds.filter(Boolean).join(" ")} d={line.path} />;
      })}
    </svg>
  );
}

/** The head of a level. */
export function Head(props: { column: Column; onToggle: () => void }) {
  const { column } = props;
  const name = column.from === column.level ? `Level ${column.level}` : `Levels ${column.from}–${column.level}`;
  const place = { left: `${column.x}px`, width: `${column.width}px` };
  const count = <span class="note">{formatCount(column.count)}</span>;
  if (!column.isOpen && column.rest === 0) {
    return (
      <div class="level" style={place}>
        {name} {count}
      </div>
    );
  }
  return (
    <div class="level" style={place}>
      {name} {count}
      <button class="plain" onClick={props.onToggle} aria-expanded={column.isOpen}>
        {column.isOpen ? "Fold" : "Show all"}
        <span class="unseen"> of level {column.level}</span>
      </button>
    </div>
  );
}

/** A box of the graph: a task, or the rest of a level. */
export function BoxView(props: {
  box: Box;
  state: string;
  isFolded: boolean;
  isCurrent: boolean;
  onOpen: () => void;
  onFold: () => void;
}) {
  const { box } = props;
  const place = { left: `${box.x}px`, top: `${box.y}px`, ...sized(box) };
  const common = { "data-key": box.key, tabIndex: props.isCurrent ? 0 : -1 };
  if (!box.task) {
    return (
      <button {...common} class={`box rest ${props.state}`} style={place} onClick={props.onOpen}>
        <span class="title">{formatCount(box.hidden.length)} more</span>
        <Counts tasks={box.hidden} />
      </button>
    );
  }
  const look = appearance(box.task);
  const words = describe(box.task);
  return (
    <div class={`box tone-${look.tone} ${props.state}`} style={place}>
      <a {...common} href={href("/tasks/:id", { id: box.task.id })} title={`${box.task.title}: ${words}`} draggable={false}>
        <Shape look={look} />
        <span class="title">{box.task.title}</span>
        <span class="state">{words}</span>
      </a>
      {box.isParent && (
        <button class="fold" tabIndex={-1} aria-expanded={!props.isFolded} onClick={props.onFold}>
          {props.isFolded && `${formatCount(done(box.hidden))}/${formatCount(box.hidden.length)} `}
          <span class="unseen">subtasks of {box.task.title}</span>
          <span aria-hidden="true">{props.isFolded ? "▸" : "▾"}</span>
        </button>
      )}
    </div>
  );
}

/** How many tasks have which state, each by its shape. */
function Counts(props: { tasks: readonly GraphTask[] }) {
  return (
    <span class="counts">
      {states(props.tasks).map(({ words, look, count }) => (
        <span key={words} title={words}>
          <Shape look={look} />
          {formatCount(count)}
          <span class="unseen"> {words}</span>
        </span>
      ))}
    </span>
  );
}

/** The states of all tasks, each with its shape and how many there are. */
export function Legend(props: { tasks: readonly GraphTask[] }) {
  return (
    <ul class="legend" aria-label="States of the tasks">
      {states(props.tasks).map(({ words, look, count }) => (
        <li key={words} class={`tone-${look.tone}`}>
          <Shape look={look} /> {words} <span class="note">{formatCount(count)}</span>
        </li>
      ))}
    </ul>
  );
}

function states(tasks: readonly GraphTask[]) {
  const found = new Map<string, { words: string; look: Look; count: number }>();
  for (const task of tasks) {
    const words = describe(task);
    const known = found.get(words) ?? { words, look: appearance(task), count: 0 };
    known.count += 1;
    found.set(words, known);
  }
  return [...found.values()].sort((a, b) => b.count - a.count);
}

function describe(task: GraphTask): string {
  if (isToDo(task.status)) return task.unmet > 0 ? "Waits for tasks" : "Ready";
  return stateInWords(task.status, task.blockedReason);
}

function appearance({ status, blockedReason, unmet }: GraphTask): Look {
  return lookOfTask(status, blockedReason, unmet);
}

function done(tasks: readonly GraphTask[]): number {
  return tasks.filter(({ status }) => status === "COMPLETED").length;
}
