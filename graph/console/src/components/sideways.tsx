import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";

import { counted } from "./numbers";

/** Columns side by side, which scroll where they do not fit; buttons then say how many are out of sight. */
export function Sideways(props: { class: string; label: string; children: ComponentChildren }) {
  const row = useRef<HTMLDivElement>(null);
  const [hidden, setHidden] = useState({ before: 0, after: 0 });

  function measure() {
    if (!row.current) return;
    const { left, right } = row.current.getBoundingClientRect();
    const boxes = [...row.current.children].map((child) => child.getBoundingClientRect());
    const before = boxes.filter((box) => box.left < left - 1).length;
    const after = boxes.filter((box) => box.right > right + 1).length;
    setHidden((known) => (known.before === before && known.after === after ? known : { before, after }));
  }

  useLayoutEffect(() => {
    const observer = new ResizeObserver(measure);
    if (row.current) observer.observe(row.current);
    return () => observer.disconnect();
  }, []);
  useLayoutEffect(measure);

  const scroll = (sign: 1 | -1) => row.current?.scrollBy({ left: sign * 0.8 * row.current.clientWidth });
  const isCut = hidden.before + hidden.after > 0;
  return (
    <>
      {isCut && (
        <p class="sideways">
          <button onClick={() => scroll(-1)} disabled={hidden.before === 0} aria-label="Columns to the left">
            ←
          </button>
          <button onClick={() => scroll(1)} disabled={hidden.after === 0} aria-label="Columns to the right">
            →
          </button>
          <span class="note">
            {counted(hidden.before + hidden.after, "column is", "columns are")} not in sight: scroll sideways.
          </span>
        </p>
      )}
      <div
        ref={row}
        class={[props.class, hidden.before > 0 && "cut-before", hidden.after > 0 && "cut-after"].filter(Boolean).join(" ")}
        role="region"
        aria-label={props.label}
        tabIndex={0}
        onScroll={measure}
      >
        {props.children}
      </div>
    </>
  );
}
