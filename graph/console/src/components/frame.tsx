import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";

/** Goes to the title of the page, where a screen reader and the keyboard then begin. */
export function focusTitle() {
  document.querySelector<HTMLElement>("h1")?.focus({ preventScroll: true });
}

/** The frame of each page: the title, which the browser shows too, and what belongs beside it. */
export function Frame(props: {
  title: string;
  /** Above the title, such as a link to what contains this. */
  above?: ComponentChildren;
  /** Beside the title, such as buttons and filters. */
  actions?: ComponentChildren;
  children: ComponentChildren;
}) {
  useEffect(() => {
    document.title = `${props.title} · Troupe`;
  }, [props.title]);
  // Like after a load by the browser.
  useEffect(focusTitle, []);
  return (
    <>
      <header class="frame">
        {props.above && <div class="above">{props.above}</div>}
        <h1 tabIndex={-1}>{props.title}</h1>
        {props.actions && <div class="actions">{props.actions}</div>}
      </header>
      {props.children}
    </>
  );
}
