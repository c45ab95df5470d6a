/** The frame in which the graph is seen: what is in sight, the wheel, and the mouse. */

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

import { type Box, HEIGHT, type Layout } from "../layout";

/** A size as a style. */
export function sized({ width, height }: { width: number; height: number }) {
  return { width: `${width}px`, height: `${height}px` };
}

/** The key of the box at an element, or null. */
export function keyAt(target: EventTarget | null): string | null {
  const box = (target as Element | null)?.closest(".box");
  const element = box?.matches("[data-key]") ? box : box?.querySelector("[data-key]");
  return (element as HTMLElement | null | undefined)?.dataset.key ?? null;
}

/** Brings an element into the middle of the frame unless it is in sight. */
function reveal(frame: HTMLElement, element: HTMLElement) {
  const [around, box] = [frame.getBoundingClientRect(), element.getBoundingClientRect()];
  const isInSight =
    box.left >= around.left && box.right <= around.right && box.top >= around.top && box.bottom <= around.bottom;
  if (!isInSight) {
    const [x, y] = [around.left + around.width / 2, around.top + around.height / 2];
    frame.scrollBy(box.left + box.width / 2 - x, box.top + box.height / 2 - y);
  }
  frame.scrollIntoView({ block: "nearest" });
}

/** Returns what brings a box into sight and gives it the focus, given its key.
 *
 * It is done in the same step as the rendering that makes the box, so that it cannot take the focus
 * from what a person has turned to meanwhile.
 */
export function useShow(frame: { current: HTMLDivElement | null }): (key: string) => void {
  const [wanted, setWanted] = useState<{ key: string } | null>(null);
  useLayoutEffect(() => {
    const element = wanted && frame.current?.querySelector<HTMLElement>(`[data-key="${CSS.escape(wanted.key)}"]`);
    if (!frame.current || !element) return;
    reveal(frame.current, element);
    element.focus({ preventScroll: true });
  }, [wanted]);
  return (key) => setWanted({ key });
}

/** Begins with all that is drawn, if `fit` fits it into the frame; else where the work is: at the first
 * task of the critical path that is not done, or the first.
 */
export function useStart(frame: { current: HTMLDivElement | null }, layout: Layout, fit: () => boolean) {
  useLayoutEffect(() => {
    if (fit()) return;
    const isLeft = ({ isCritical, task }: Box) => isCritical && task !== null && task.status !== "COMPLETED";
    const first = layout.boxes.find(isLeft);
    if (!first || !frame.current) return;
    frame.current.scrollLeft = first.x - frame.current.clientWidth / 4;
    frame.current.scrollTop = first.y + HEIGHT / 2 - frame.current.clientHeight / 2;
  }, []);
}

/** Keeps what is in the middle there when the zoom changes. */
export function useSteady(frame: { current: HTMLDivElement | null }, zoom: number) {
  const last = useRef(zoom);
  useLayoutEffect(() => {
    const space = frame.current;
    const ratio = zoom / last.current;
    last.current = zoom;
    if (!space || ratio === 1) return;
    const [x, y] = [space.clientWidth / 2, space.clientHeight / 2];
    space.scrollTo((space.scrollLeft + x) * ratio - x, (space.scrollTop + y) * ratio - y);
  }, [zoom]);
}

/** Calls `change` where the wheel is turned with Ctrl, or two fingers spread. */
export function useZoomByWheel(frame: { current: HTMLDivElement | null }, change: (step: 1 | -1) => void) {
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
export function drag(event: PointerEvent, frame: HTMLElement | null) {
  if (!frame || event.pointerType !== "mouse" || event.button !== 0 || keyAt(event.target)) return;
  const start = { x: event.clientX + frame.scrollLeft, y: event.clientY + frame.scrollTop };
  const move = ({ clientX, clientY }: PointerEvent) => frame.scrollTo(start.x - clientX, start.y - clientY);
  const end = () => removeEventListener("pointermove", move);
  addEventListener("pointermove", move);
  addEventListener("pointerup", end, { once: true });
}
