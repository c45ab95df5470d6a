import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";

import {
  type Box,
  type Column,
  type Direction,
  type GraphTask,
  HEIGHT,
  type Layout,
  layOut,
  neighbour,
  parents,
  related,
} from "../layout";
import { href, navigate } from "../router";
import { type GraphSource, useGraph } from "../task-graph";
import { Empty } from "./empty";
import { Failure } from "./failure";
import { Loading } from "./loaded";
import { formatCount } from "./numbers";
import { Shortcuts } from "./shortcuts";
import { Shape, lookOf, stateInWords } from "./status";

/** From so many tasks on, subtasks are shown only where one asks for them. */
const MANY = 60;
const ZOOMS = [0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1, 1.25, 1.5];
/** Below this zoom, texts are too small to be read, and only shapes are shown. */
const READABLE = 0.5;

const ARROWS: Record<string, Direction> = {
  ArrowLeft: "left",
  ArrowRight: "right",
  ArrowUp: "up",
  ArrowDown: "down",
};

/** The tasks of a project as a graph: what waits for what, from left to right. */
export function ProjectGraph(props: { source: GraphSource; search: string }) {
  const { graph, totalSeconds, failure, read } = useGraph(props.source);
  if (failure) return <Failure message={failure} onRetry={read} />;
  if (!graph) return <Loading />;
  if (graph.tasks.length === 0) {
    return (
      <Empty title="This project has no tasks yet">
        <p>
          Orchestrators add them with <code>createTasks</code>, and workers with <code>createTask</code>. Try it in{" "}
          <a href="/graphql">GraphiQL</a>.
        </p>
      </Empty>
    );
  }
  return <Drawn graph={graph} totalSeconds={totalSeconds} search={props.search} />;
}

function Drawn(props: {
  graph: { tasks: readonly GraphTask[]; edges: readonly { from: string; to: string }[]; path: readonly string[] };
  totalSeconds: number;
  search: string;
}) {
  const { graph, search } = props;
  const frame = useRef<HTMLDivElement>(null);
  const searched = useRef<HTMLInputElement>(null);
  // The parents whose subtasks are not as they are at first, and the levels that are open.
  const [toggled, setToggled] = useState<ReadonlySet<string>>(new Set());
  const [open, setOpen] = useState<ReadonlySet<number>>(new Set());
  const [zoom, setZoom] = useState(1);
  const [focused, setFocused] = useState<string | null>(null);
  const [hovered, setHovered] = useState<string | null>(null);
  const [found, setFound] = useState<string | null>(null);

  const allParents = useMemo(() => parents(graph), [graph]);
  const collapsed = useMemo(() => {
    const isToggled = (id: string) => toggled.has(id);
    const isMany = graph.tasks.length > MANY;
    return new Set([...allParents].filter((id) => isToggled(id) !== isMany));
  }, [allParents, graph.tasks.length > MANY, toggled]);
  const layout = useMemo(
    () => layOut(graph, { collapsed, open, pinned: new Set(found ? [found] : []) }),
    [graph, collapsed, open, found],
  );
  const matches = useMemo(() => matching(graph.tasks, search), [graph.tasks, search]);
  const active = hovered ?? focused;
  const around = useMemo(() => (active ? related(layout, active) : null), [layout, active]);
  const current = layout.boxes.some(({ key }) => key === focused) ? focused : (layout.boxes[0]?.key ?? null);

  useStart(frame, layout);
  useZoomByWheel(frame, (step) => changeZoom(step));

  function changeZoom(step: number) {
    setZoom((present) => ZOOMS[Math.max(0, Math.min(ZOOMS.length - 1, ZOOMS.indexOf(present) + step))] ?? 1);
  }

  function fit() {
    const space = frame.current;
    if (!space) return;
    const wanted = Math.min(space.clientWidth / layout.width, space.clientHeight / layout.height);
    setZoom([...ZOOMS].reverse().find((each) => each <= wanted) ?? (ZOOMS[0] as number));
    space.scrollTo({ left: 0, top: 0 });
  }

  function show(key: string, options: { focus: boolean }) {
    // The box may be rendered only now.
    requestAnimationFrame(() => {
      const element = frame.current?.querySelector<HTMLElement>(`[data-key="${CSS.escape(key)}"]`);
      element?.scrollIntoView({ block: "center", inline: "center" });
      if (options.focus) element?.focus({ preventScroll: true });
    });
  }

  function toggleParent(id: string) {
    setFound(null);
    setToggled(flipped(toggled, id));
    show(id, { focus: true });
  }

  function toggleLevel(level: number) {
    setOpen(flipped(open, level));
    const first = layout.boxes.find(({ task }) => task?.level === level);
    if (first) show(first.key, { focus: true });
  }

  function goToMatch(step: number) {
    if (matches.length === 0) return;
    const at = matches.findIndex(({ id }) => id === found);
    const next = matches[at < 0 ? 0 : (at + step + matches.length) % matches.length];
    if (!next) return;
    setFound(next.id);
    setZoom((present) => Math.max(present, READABLE));
    show(next.id, { focus: false });
  }

  function press(event: KeyboardEvent) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target as HTMLElement;
    const key = target.dataset.key;
    if (key && ARROWS[event.key]) {
      const next = neighbour(layout, key, ARROWS[event.key] as Direction);
      if (next) show(next.key, { focus: true });
    } else if (key && event.key === " " && allParents.has(key)) toggleParent(key);
    else return;
    event.preventDefault();
  }

  const scale = sized({ width: layout.width * zoom, height: layout.height * zoom });
  const isFar = zoom < READABLE;
  return (
    <section class="graph" aria-label="Graph of the tasks">
      <div class="toolbar">
        <Search
          input={searched}
          value={search}
          matches={matches.length}
          at={matches.findIndex(({ id }) => id === found)}
          onGo={goToMatch}
          onClear={() => setFound(null)}
        />
        <div class="zoom" role="group" aria-label="Zoom">
          <button onClick={() => changeZoom(-1)} aria-label="Smaller" disabled={zoom === ZOOMS[0]}>
            −
          </button>
          <button onClick={fit}>Fit</button>
          <button onClick={() => changeZoom(1)} aria-label="Larger" disabled={zoom === ZOOMS.at(-1)}>
            +
          </button>
        </div>
        {allParents.size > 0 && (
          <button onClick={() => setToggled(collapsed.size > 0 ? inverted(toggled, collapsed) : inverted(toggled, allParents))}>
            {collapsed.size > 0 ? "Show all subtasks" : "Fold all subtasks"}
          </button>
        )}
        <Shortcuts
          keys={[
            { key: "/", does: "Search tasks; Enter goes to the next one", run: () => searched.current?.focus() },
            { key: "+", does: "Larger", run: () => changeZoom(1) },
            { key: "-", does: "Smaller", run: () => changeZoom(-1) },
            { key: "0", does: "Fit all tasks", run: fit },
            { key: "← → ↑ ↓", does: "Go from task to task", run: () => {} },
            { key: "Space", does: "Show or fold the subtasks of a task", run: () => {} },
            { key: "Enter", does: "Open a task", run: () => {} },
          ]}
        />
        <p class="note">
          {formatCount(graph.tasks.length)} tasks.
          {graph.path.length > 0 && (
            <>
              {" "}
              <span class="critical-key" aria-hidden="true" /> Critical path: {formatCount(graph.path.length)} tasks
              {props.totalSeconds > 0 && `, estimated at ${duration(props.totalSeconds)}`}.
            </>
          )}
        </p>
      </div>
      <div
        ref={frame}
        class={`canvas${isFar ? " far" : ""}${active ? " tracing" : ""}${search ? " searching" : ""}`}
        role="group"
        aria-label="Tasks by level; arrow keys go from task to task"
        onKeyDown={press}
        onFocusIn={(event) => setFocused((event.target as HTMLElement).dataset.key ?? focused)}
        onPointerOver={(event) => setHovered(keyAt(event.target))}
        onPointerLeave={() => setHovered(null)}
        onPointerDown={(event) => drag(event, frame.current)}
      >
        <div class="sizer" style={scale}>
          <div class="scaled" style={{ ...sized(layout), transform: `scale(${zoom})` }}>
            <Lines layout={layout} around={around} />
            {layout.columns.map((column) => (
              <Head key={`level-${column.level}`} column={column} onToggle={() => toggleLevel(column.level)} />
            ))}
            {layout.boxes.map((box) => {
              const isMatch = matches.length > 0 && contains(box, search);
              const state = [
                box.isCritical && "critical",
                around?.has(box.key) && "around",
                isMatch && "match",
                found !== null && box.key === found && "found",
              ];
              return (
                <Drawing
                  key={box.key}
                  box={box}
                  state={state.filter(Boolean).join(" ")}
                  isFolded={box.hidden.length > 0}
                  isCurrent={box.key === current}
                  onOpen={() => toggleLevel(layout.columns[box.column]?.level ?? 0)}
                  onFold={() => toggleParent(box.key)}
                />
              );
            })}
          </div>
        </div>
      </div>
      <Legend tasks={graph.tasks} />
    </section>
  );
}

function Search(props: {
  input: { current: HTMLInputElement | null };
  value: string;
  matches: number;
  at: number;
  onGo: (step: number) => void;
  onClear: () => void;
}) {
  function type(value: string) {
    const [path = "", query] = location.hash.slice(1).split("?", 2);
    const all = new URLSearchParams(query);
    if (value) all.set("search", value);
    else all.delete("search");
    props.onClear();
    navigate(href(path, {}, Object.fromEntries(all)), { replace: true });
  }
  return (
    <form
      class="search"
      role="search"
      onSubmit={(event) => {
        event.preventDefault();
        props.onGo(1);
      }}
    >
      <input
        ref={props.input}
        type="search"
        aria-label="Search tasks by title"
        placeholder="Search tasks"
        value={props.value}
        onInput={(event) => type(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Enter" && event.shiftKey) {
            event.preventDefault();
            props.onGo(-1);
          }
        }}
      />
      {props.value && (
        <>
          <span class="note" role="status">
            {props.at >= 0 ? `${formatCount(props.at + 1)} of ` : ""}
            {formatCount(props.matches)} found
          </span>
          <button type="submit" disabled={props.matches === 0}>
            Next
          </button>
        </>
      )}
    </form>
  );
}

function Lines(props: { layout: Layout; around: ReadonlySet<string> | null }) {
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

function Head(props: { column: Column; onToggle: () => void }) {
  const { column } = props;
  const name = `Level ${formatCount(column.level + 1)}`;
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
        <span class="unseen"> of level {column.level + 1}</span>
      </button>
    </div>
  );
}

function Drawing(props: {
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
  const look = lookOf(box.task.status, box.task.blockedReason);
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

function Legend(props: { tasks: readonly GraphTask[] }) {
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
  const found = new Map<string, { words: string; look: ReturnType<typeof lookOf>; count: number }>();
  for (const task of tasks) {
    const words = describe(task);
    const known = found.get(words) ?? { words, look: lookOf(task.status, task.blockedReason), count: 0 };
    known.count += 1;
    found.set(words, known);
  }
  return [...found.values()].sort((a, b) => b.count - a.count);
}

function describe({ status, blockedReason, unmet }: GraphTask): string {
  if (status === "PENDING" || status === "ASSIGNED") return unmet > 0 ? "Waits for tasks" : "Ready";
  return stateInWords(status, blockedReason);
}

function done(tasks: readonly GraphTask[]): number {
  return tasks.filter(({ status }) => status === "COMPLETED").length;
}

function matching(tasks: readonly GraphTask[], search: string): GraphTask[] {
  const wanted = search.trim().toLowerCase();
  return wanted ? tasks.filter((task) => task.title.toLowerCase().includes(wanted)) : [];
}

function contains(box: Box, search: string): boolean {
  return matching(box.task ? [box.task, ...box.hidden] : box.hidden, search).length > 0;
}

function duration(seconds: number): string {
  const parts: [number, string][] = [
    [Math.floor(seconds / 86_400), "d"],
    [Math.floor(seconds / 3_600) % 24, "h"],
    [Math.floor(seconds / 60) % 60, "min"],
    [seconds % 60, "s"],
  ];
  const shown = parts.filter(([value]) => value > 0).slice(0, 2);
  return shown.map(([value, unit]) => `${formatCount(value)} ${unit}`).join(" ");
}

function flipped<Value>(set: ReadonlySet<Value>, value: Value): Set<Value> {
  const next = new Set(set);
  if (!next.delete(value)) next.add(value);
  return next;
}

function inverted<Value>(set: ReadonlySet<Value>, values: Iterable<Value>): ReadonlySet<Value> {
  let next = set;
  for (const value of values) next = flipped(next, value);
  return next;
}

function sized({ width, height }: { width: number; height: number }) {
  return { width: `${width}px`, height: `${height}px` };
}

function keyAt(target: EventTarget | null): string | null {
  const box = (target as Element | null)?.closest(".box");
  const element = box?.matches("[data-key]") ? box : box?.querySelector("[data-key]");
  return (element as HTMLElement | null | undefined)?.dataset.key ?? null;
}

/** Begins where the work is: at the first task of the critical path that is not done, or the first. */
function useStart(frame: { current: HTMLDivElement | null }, layout: Layout) {
  useLayoutEffect(() => {
    const isLeft = ({ isCritical, task }: Box) => isCritical && task !== null && task.status !== "COMPLETED";
    const first = layout.boxes.find(isLeft);
    if (!first || !frame.current) return;
    frame.current.scrollLeft = first.x - frame.current.clientWidth / 4;
    frame.current.scrollTop = first.y + HEIGHT / 2 - frame.current.clientHeight / 2;
  }, []);
}

function useZoomByWheel(frame: { current: HTMLDivElement | null }, change: (step: number) => void) {
  const latest = useRef(change);
  latest.current = change;
  useEffect(() => {
    // Preact's listeners of `wheel` are passive, and could not keep the browser from zooming.
    function turn(event: WheelEvent) {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      latest.current(event.deltaY < 0 ? 1 : -1);
    }
    const element = frame.current;
    element?.addEventListener("wheel", turn, { passive: false });
    return () => element?.removeEventListener("wheel", turn);
  }, []);
}

/** Moves what is seen with the mouse; a click on a box is none. */
function drag(event: PointerEvent, frame: HTMLElement | null) {
  if (!frame || event.pointerType !== "mouse" || event.button !== 0 || keyAt(event.target)) return;
  const start = { x: event.clientX + frame.scrollLeft, y: event.clientY + frame.scrollTop };
  const move = ({ clientX, clientY }: PointerEvent) => frame.scrollTo(start.x - clientX, start.y - clientY);
  const end = () => removeEventListener("pointermove", move);
  addEventListener("pointermove", move);
  addEventListener("pointerup", end, { once: true });
}
