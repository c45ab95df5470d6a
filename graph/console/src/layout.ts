/** Where the tasks of a project stand when they are drawn as a graph. Pure functions of data. */

import type { TaskStatus } from "./generated/schema";

/** A task of the graph. */
export type GraphTask = {
  id: string;
  title: string;
  status: TaskStatus;
  blockedReason: string | null;
  /** The length of the longest chain of tasks that it waits for. */
  level: number;
  parentId: string | null;
  /** How many tasks it still waits for. */
  unmet: number;
};

/** A dependency: the task `to` waits for the task `from`. */
export type GraphEdge = { from: string; to: string };

/** The tasks of a project, with the ids of its critical path from the first to the last. */
export type Graph = { tasks: readonly GraphTask[]; edges: readonly GraphEdge[]; path: readonly string[] };

/** What of a graph is shown. */
export type View = {
  /** The parents whose subtasks are not shown. */
  collapsed: ReadonlySet<string>;
  /** The levels that are shown in full, however many tasks they have. */
  open: ReadonlySet<number>;
  /** The tasks that are shown in any case. */
  pinned: ReadonlySet<string>;
};

/** A task; with `hidden`, one with the subtasks that it stands for; or without `task`, a rest. */
export type Box = {
  key: string;
  x: number;
  y: number;
  width: number;
  height: number;
  column: number;
  /** The task that is shown; null for the rest of a level, which is not shown one by one. */
  task: GraphTask | null;
  /** The tasks that the box stands for besides its own. */
  hidden: GraphTask[];
  /** Whether it has subtasks, shown or not. */
  isParent: boolean;
  isCritical: boolean;
};

/** What waits for what, from box to box. */
export type Line = {
  key: string;
  from: string;
  to: string;
  kind: "dependency" | "subtask";
  isCritical: boolean;
  /** The path of the curve, as SVG has it. */
  path: string;
};

/** The boxes of a level. */
export type Column = {
  /** The first level of the column: those before `level` have only tasks that are folded here. */
  from: number;
  level: number;
  x: number;
  width: number;
  /** How many tasks are at this level, and how many of them are in the rest. */
  count: number;
  rest: number;
  /** Whether it is shown in full because that was asked for. */
  isOpen: boolean;
};

export type Layout = { boxes: Box[]; lines: Line[]; columns: Column[]; width: number; height: number };

/** The most boxes of a level that is not open. */
export const MOST_BOXES = 12;
/** The most boxes in a row of an open level, from top to bottom. */
export const MOST_ROWS = 24;

export const WIDTH = 208;
export const HEIGHT = 44;
const GAP_X = 64;
const GAP_Y = 10;
const TOP = 36;
const MARGIN = 16;
const SWEEPS = 4;

/** The ids of all tasks that have subtasks. */
export function parents(graph: Graph): Set<string> {
  const ids = new Set(graph.tasks.map(({ id }) => id));
  return new Set(graph.tasks.flatMap(({ parentId }) => (parentId && ids.has(parentId) ? [parentId] : [])));
}

/** The boxes and lines of a graph, in columns by level from left to right. */
export function layOut(graph: Graph, view: View): Layout {
  const tasks = new Map(graph.tasks.map((task) => [task.id, task]));
  const critical = new Set(graph.path);
  const collapsed = withoutAncestors(view.collapsed, view.pinned, tasks);
  const shownAs = representatives(tasks, collapsed);
  const isParent = parents(graph);

  const boxes = new Map<string, Box>();
  for (const task of graph.tasks) {
    if (shownAs.get(task.id) !== task.id) continue;
    boxes.set(task.id, {
      ...NOWHERE,
      key: task.id,
      task,
      hidden: [],
      isParent: isParent.has(task.id),
      isCritical: critical.has(task.id),
    });
  }
  for (const task of graph.tasks) {
    const box = boxes.get(shownAs.get(task.id) ?? "");
    if (!box || box.key === task.id) continue;
    box.hidden.push(task);
    box.isCritical ||= critical.has(task.id);
  }

  const levels = [...new Set([...boxes.values()].map(({ task }) => task?.level ?? 0))].sort((a, b) => a - b);
  const byLevel = new Map<number, Box[]>(levels.map((level) => [level, []]));
  for (const box of boxes.values()) byLevel.get(box.task?.level ?? 0)?.push(box);
  const rests = new Map<number, Box>();
  for (const [level, all] of byLevel) {
    if (view.open.has(level) || all.length <= MOST_BOXES) continue;
    const ranked = [...all].sort((a, b) => rank(a, view.pinned) - rank(b, view.pinned));
    const pinned = all.filter(({ key }) => view.pinned.has(key)).length;
    const shown = new Set(ranked.slice(0, Math.max(MOST_BOXES - 1, pinned)));
    const left = all.filter((box) => !shown.has(box));
    if (left.length === 0) continue;
    const key = `rest-${level}`;
    const rest = { ...NOWHERE, key, task: null, hidden: [], isParent: false, isCritical: false } as Box;
    for (const box of left) {
      if (box.task) rest.hidden.push(box.task);
      rest.hidden.push(...box.hidden);
      rest.isCritical ||= box.isCritical;
      for (const task of [box.task, ...box.hidden]) if (task) shownAs.set(task.id, key);
      boxes.delete(box.key);
    }
    boxes.set(key, rest);
    rests.set(level, rest);
    byLevel.set(level, all.filter((box) => shown.has(box)));
  }

  const pairs = connections(graph, shownAs, tasks, isParent, collapsed);
  const order = levels.map((level) => byLevel.get(level) ?? []);
  untangle(order, pairs);
  levels.forEach((level, index) => {
    const rest = rests.get(level);
    if (rest) order[index]?.push(rest); // always the last one
  });
  const columns = place(order, levels, view, rests);

  const lines = [...pairs.values()].flatMap((pair) => {
    const from = boxes.get(pair.from);
    const to = boxes.get(pair.to);
    return from && to ? [{ ...pair, path: curve(from, to) }] : [];
  });
  const last = columns.at(-1);
  const bottoms = [...boxes.values()].map(({ y, height }) => y + height);
  return {
    boxes: order.flat(),
    lines,
    columns,
    width: last ? last.x + last.width + MARGIN : 0,
    height: bottoms.length ? Math.max(...bottoms) + MARGIN : 0,
  };
}

const NOWHERE = { x: 0, y: 0, width: WIDTH, height: HEIGHT, column: 0 };

/** The parents that stay collapsed so that the pinned tasks are seen. */
function withoutAncestors(
  collapsed: ReadonlySet<string>,
  pinned: ReadonlySet<string>,
  tasks: ReadonlyMap<string, GraphTask>,
): Set<string> {
  const left = new Set(collapsed);
  for (const id of pinned) {
    let parent = tasks.get(id)?.parentId;
    while (parent) {
      left.delete(parent);
      parent = tasks.get(parent)?.parentId;
    }
  }
  return left;
}

/** For each task the one that is shown for it: its topmost ancestor that is collapsed, or itself. */
function representatives(
  tasks: ReadonlyMap<string, GraphTask>,
  collapsed: ReadonlySet<string>,
): Map<string, string> {
  const found = new Map<string, string>();
  for (const task of tasks.values()) {
    // From the task upwards as far as nothing is known, then downwards again.
    const chain = [task];
    for (;;) {
      const { parentId } = chain.at(-1) as GraphTask;
      const parent = parentId ? tasks.get(parentId) : undefined;
      if (!parent || found.has((chain.at(-1) as GraphTask).id)) break;
      chain.push(parent);
    }
    for (const { id, parentId } of chain.reverse()) {
      if (found.has(id)) continue;
      const above = parentId ? found.get(parentId) : undefined;
      const isHidden = parentId && above && (above !== parentId || collapsed.has(parentId));
      found.set(id, isHidden ? above : id);
    }
  }
  return found;
}

/** Which boxes of a level are shown first if not all are: the lowest. */
function rank({ key, task, isCritical }: Box, pinned: ReadonlySet<string>): number {
  if (pinned.has(key)) return 0;
  if (isCritical) return 1;
  if (!task) return 9;
  if (["IN_PROGRESS", "FAILED", "BLOCKED"].includes(task.status)) return 2;
  if (["PENDING", "ASSIGNED"].includes(task.status)) return task.unmet === 0 ? 3 : 4;
  return task.status === "COMPLETED" ? 6 : 5;
}

type Pair = Omit<Line, "path">;

/** What waits for what between the boxes, each pair once. */
function connections(
  graph: Graph,
  shownAs: ReadonlyMap<string, string>,
  tasks: ReadonlyMap<string, GraphTask>,
  isParent: ReadonlySet<string>,
  collapsed: ReadonlySet<string>,
): Map<string, Pair> {
  const pairs = new Map<string, Pair>();
  const add = (fromTask: string, toTask: string, kind: Pair["kind"], isCritical: boolean) => {
    const from = shownAs.get(fromTask);
    const to = shownAs.get(toTask);
    if (!from || !to || from === to) return;
    const key = `${from} ${to}`;
    const known = pairs.get(key);
    if (!known) pairs.set(key, { key, from, to, kind, isCritical });
    else if (isCritical) known.isCritical = true;
    else if (kind === "dependency") known.kind = kind;
  };
  for (const { from, to } of graph.edges) add(from, to, "dependency", false);
  for (const { id, parentId } of tasks.values()) {
    if (parentId && isParent.has(parentId) && !collapsed.has(parentId)) add(id, parentId, "subtask", false);
  }
  // A task of the path may wait for the one before it through its parent, without an edge.
  graph.path.slice(1).forEach((id, index) => add(graph.path[index] ?? "", id, "subtask", true));
  return pairs;
}

/** Sorts the boxes of each column by where those that they are connected with stand. */
function untangle(columns: Box[][], pairs: ReadonlyMap<string, Pair>) {
  const before = new Map<string, string[]>();
  const after = new Map<string, string[]>();
  for (const { from, to } of pairs.values()) {
    before.set(to, [...(before.get(to) ?? []), from]);
    after.set(from, [...(after.get(from) ?? []), to]);
  }
  const position = new Map<string, number>();
  const note = (column: Box[]) =>
    column.forEach(({ key }, index) => position.set(key, index - (column.length - 1) / 2));
  columns.forEach(note);
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    const isForward = sweep % 2 === 0;
    const neighbours = isForward ? before : after;
    for (const column of isForward ? columns : [...columns].reverse()) {
      const wanted = new Map(
        column.map(({ key }) => {
          const places = (neighbours.get(key) ?? []).flatMap((each) => position.get(each) ?? []);
          const mean = places.reduce((sum, each) => sum + each, 0) / places.length;
          return [key, places.length ? mean : (position.get(key) ?? 0)] as const;
        }),
      );
      column.sort((a, b) => (wanted.get(a.key) ?? 0) - (wanted.get(b.key) ?? 0));
      note(column);
    }
  }
}

/** Gives each box its place, and returns the columns. */
function place(
  order: Box[][],
  levels: number[],
  view: View,
  rests: ReadonlyMap<number, Box>,
): Column[] {
  const across = order.map(({ length }) => Math.ceil(length / MOST_ROWS));
  const down = order.map(({ length }, index) => Math.ceil(length / (across[index] ?? 1)));
  const rows = Math.max(0, ...down);
  let x = MARGIN;
  return order.map((column, index) => {
    const level = levels[index] ?? 0;
    const [rowsHere, columnsHere] = [down[index] ?? 1, across[index] ?? 1];
    const top = TOP + ((rows - rowsHere) * (HEIGHT + GAP_Y)) / 2;
    column.forEach((box, at) => {
      box.column = index;
      box.x = x + Math.floor(at / rowsHere) * (WIDTH + GAP_Y);
      box.y = top + (at % rowsHere) * (HEIGHT + GAP_Y);
    });
    const width = columnsHere * (WIDTH + GAP_Y) - GAP_Y;
    const rest = rests.get(level)?.hidden.length ?? 0;
    const result = { from: index > 0 ? (levels[index - 1] ?? 0) + 1 : 0, level, x, width, count: column.length - (rest ? 1 : 0) + rest, rest };
    x += width + GAP_X;
    return { ...result, isOpen: view.open.has(level) && column.length > MOST_BOXES };
  });
}

/** A curve from the right side of a box to the left side of another. */
function curve(from: Box, to: Box): string {
  const [x1, y1] = [from.x + from.width, from.y + from.height / 2];
  const [x2, y2] = [to.x, to.y + to.height / 2];
  const bend = Math.max(24, Math.abs(x2 - x1) / 2);
  return `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
}

export type Direction = "left" | "right" | "up" | "down";

/** The box to which an arrow key leads from another; null if there is none.
 *
 * Left and right follow the lines where there are some.
 */
export function neighbour({ boxes, lines }: Layout, key: string, direction: Direction): Box | null {
  const here = boxes.find((box) => box.key === key);
  if (!here) return boxes[0] ?? null;
  const sideways = direction === "left" || direction === "right";
  const sign = direction === "left" || direction === "up" ? -1 : 1;
  const isAhead = (box: Box) => sign * (sideways ? box.x - here.x : box.y - here.y) > 0;
  const linked = new Set(
    lines.flatMap(({ from, to }) =>
      direction === "left" && to === key ? [from] : direction === "right" && from === key ? [to] : [],
    ),
  );
  const ahead = boxes.filter((box) => isAhead(box) && (sideways || box.x === here.x));
  const near = ahead.filter((box) => linked.has(box.key));
  // How far it is ahead counts most, then how far it is aside.
  const distance = (box: Box) =>
    sideways
      ? Math.abs(box.x - here.x) * 1_000 + Math.abs(box.y - here.y)
      : Math.abs(box.y - here.y);
  const [nearest] = (near.length ? near : ahead).sort((a, b) => distance(a) - distance(b));
  return nearest ?? null;
}

/** The keys of the boxes that a box waits for or that wait for it, over any number of lines. */
export function related({ lines }: Layout, key: string): Set<string> {
  const found = new Set([key]);
  for (const [here, there] of [["to", "from"], ["from", "to"]] as const) {
    const next = new Map<string, string[]>();
    for (const line of lines) next.set(line[here], [...(next.get(line[here]) ?? []), line[there]]);
    const reached = new Set([key]);
    for (const each of reached) for (const other of next.get(each) ?? []) reached.add(other);
    for (const each of reached) found.add(each);
  }
  return found;
}
