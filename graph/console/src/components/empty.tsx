import type { ComponentChildren } from "preact";

/** In the place of a list without entries: why it is empty, and what the first step is. */
export function Empty(props: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <h2>{props.title}</h2>
      {props.children}
    </div>
  );
}
