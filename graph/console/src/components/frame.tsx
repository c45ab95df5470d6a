import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";

/** The frame of each page: the title, which the browser shows too, and what belongs beside it. */
export function Frame(props: {
  title: string;
  /** Above the title, such as a link to what contains this. */
  above?: ComponentChildren;
  /** Beside the title, such as buttons and filters. */
  actions?: ComponentChildren;
  children: ComponentChildren;
}) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${props.title} · Troupe`;
  }, [props.title]);
  // A screen reader begins at the new page, like after a load by the browser.
  useEffect(() => heading.current?.focus({ preventScroll: true }), []);
  return (
    <>
      <header class="frame">
        {props.above && <div class="above">{props.above}</div>}
        <h1 ref={heading} tabIndex={-1}>
          {props.title}
        </h1>
        {props.actions && <div class="actions">{props.actions}</div>}
      </header>
      {props.children}
    </>
  );
}
