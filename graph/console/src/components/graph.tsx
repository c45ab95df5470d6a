import { useMemo, useRef, useState } from "preact/hooks";

import { type Direction, type Graph, layOut, neighbour, parents, related } from "../layout";
import { type GraphSource, useGraph } from "../task-graph";
import { Empty } from "./empty";
import { Failure } from "./failure";
import { drag, keyAt, sized, useShow, useStart, useSteady, useZoomByWheel } from "./graph-frame";
import { BoxView, Head, Legend, Lines } from "./graph-parts";
import { TaskSearch, contains, matching } from "./graph-search";
import { GraphiQL } from "./graphiql";
import { Loading } from "./loaded";
import { counted, formatCount } from "./numbers";
import { Shortcuts } from "./shortcuts";

/** From so many tasks on, subtasks are shown only where one asks for them. */
const MANY = 60;
const NORMAL = 1;
/** The steps of the zoom: the smallest and the largest are its limits. */
const ZOOMS = [0.2, 0.3, 0.4, 0.5, 0.65, 0.8, NORMAL, 1.25, 1.5];
const [SMALLEST, LARGEST] = [Math.min(...ZOOMS), Math.max(...ZOOMS)];
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
  const failed = failure !== null && <Failure message={failure} onRetry={read} />;
  if (!graph) return failed || <Loading />;
  if (graph.tasks.length === 0) {
    return (
      <Empty title="This project has no tasks yet">
        <p>
          Orchestrators add them with <code>createTasks</code>, and workers with <code>createTask</code>. Try it in{" "}
          <GraphiQL />.
        </p>
      </Empty>
    );
  }
  return (
    <>
      {failed}
      <Drawn graph={graph} totalSeconds={totalSeconds} search={props.search} />
    </>
  );
}

function Drawn(props: { graph: Graph; totalSeconds: number; search: string }) {
  const { graph, search } = props;
  const frame = useRef<HTMLDivElement>(null);
  const searched = useRef<HTMLInputElement>(null);
  // The parents whose subtasks are not as they are at first, and the levels that are open.
  const [toggled, setToggled] = useState<ReadonlySet<string>>(new Set());
  const [open, setOpen] = useState<ReadonlySet<number>>(new Set());
  const [zoom, setZoom] = useState<number>(NORMAL);
  const [focused, setFocused] = useState<string | null>(null);
  const [isFocused, setIsFocused] = useState(false);
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
  const active = hovered ?? (isFocused ? focused : null);
  const around = useMemo(() => (active ? related(layout, active) : null), [layout, active]);
  const current = layout.boxes.some(({ key }) => key === focused) ? focused : (layout.boxes[0]?.key ?? null);

  // At first all of it, if it can then be read; else where the work is.
  useStart(frame, layout, () => {
    const wanted = zoomToFit();
    if (wanted < READABLE) return false;
    setZoom(wanted);
    return true;
  });
  useSteady(frame, zoom);
  const show = useShow(frame);
  useZoomByWheel(frame, (step) => changeZoom(step));

  function changeZoom(step: 1 | -1) {
    setZoom((present) => {
      const others = ZOOMS.filter((each) => (step > 0 ? each > present : each < present));
      return others.at(step > 0 ? 0 : -1) ?? present;
    });
  }

  function zoomToFit(): number {
    const { clientWidth, clientHeight } = frame.current ?? { clientWidth: 0, clientHeight: 0 };
    const wanted = Math.min(clientWidth / layout.width, clientHeight / layout.height);
    return Math.min(NORMAL, Math.max(SMALLEST, Math.floor(100 * wanted) / 100));
  }

  function fit() {
    setZoom(zoomToFit());
    frame.current?.scrollTo({ left: 0, top: 0 });
  }

  function toggleParent(id: string) {
    setFound(null);
    setToggled(flipped(toggled, id));
    show(id);
  }

  function toggleLevel(level: number) {
    setOpen(flipped(open, level));
    const first = layout.boxes.find(({ task }) => task?.level === level);
    if (first) show(first.key);
  }

  function goToMatch(step: number) {
    if (matches.length === 0) return;
    const at = matches.findIndex(({ id }) => id === found);
    const next = matches[at < 0 ? 0 : (at + step + matches.length) % matches.length];
    if (!next) return;
    setFound(next.id);
    setZoom((present) => Math.max(present, READABLE));
    show(next.id);
  }

  function press(event: KeyboardEvent) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target as HTMLElement;
    const key = target.dataset.key;
    if (key && ARROWS[event.key]) {
      const next = neighbour(layout, key, ARROWS[event.key] as Direction);
      if (next) show(next.key);
    } else if (key && event.key === " " && allParents.has(key)) toggleParent(key);
    else return;
    event.preventDefault();
  }

  const scale = sized({ width: layout.width * zoom, height: layout.height * zoom });
  const isFar = zoom < READABLE;
  return (
    <section class="graph" aria-label="Graph of the tasks">
      <div class="toolbar">
        <TaskSearch
          input={searched}
          value={search}
          matches={matches.length}
          at={matches.findIndex(({ id }) => id === found)}
          onGo={goToMatch}
          onClear={() => setFound(null)}
        />
        <div class="zoom" role="group" aria-label="Zoom">
          <button onClick={() => changeZoom(-1)} aria-label="Smaller" disabled={zoom === SMALLEST}>
            −
          </button>
          <button onClick={fit}>Fit</button>
          <button onClick={() => changeZoom(1)} aria-label="Larger" disabled={zoom === LARGEST}>
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
            { key: "/", does: "Search tasks; Enter goes to the first one found", run: () => searched.current?.focus() },
            { key: "n", does: "Go to the next task found", run: () => goToMatch(1) },
            { key: "p", does: "Go to the previous task found", run: () => goToMatch(-1) },
            { key: "+", does: "Larger", run: () => changeZoom(1) },
            { key: "-", does: "Smaller", run: () => changeZoom(-1) },
            { key: "0", does: "Fit all tasks", run: fit },
            { key: "← → ↑ ↓", does: "Go from task to task", run: () => {} },
            { key: "Space", does: "Show or fold the subtasks of a task", run: () => {} },
            { key: "Enter", does: "Open a task", run: () => {} },
          ]}
        />
        <p class="note">
          {counted(graph.tasks.length, "task")}.
          {graph.path.length > 0 && (
            <>
              {" "}
              <span class="critical-key" aria-hidden="true" /> Critical path: {counted(graph.path.length, "task")}
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
        onFocusIn={(event) => {
          const { key } = (event.target as HTMLElement).dataset;
          setIsFocused(key !== undefined);
          if (key) setFocused(key);
        }}
        onFocusOut={() => setIsFocused(false)}
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
                <BoxView
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

