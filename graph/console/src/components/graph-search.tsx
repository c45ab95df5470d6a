import type { Box, GraphTask } from "../layout";
import { navigate, href } from "../router";
import { formatCount } from "./numbers";

/** The field to search tasks; what is searched is in the URL. */
export function TaskSearch(props: {
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
      class="task-search"
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

/** The tasks whose titles contain a text. */
export function matching(tasks: readonly GraphTask[], search: string): GraphTask[] {
  const wanted = search.trim().toLowerCase();
  return wanted ? tasks.filter((task) => task.title.toLowerCase().includes(wanted)) : [];
}

/** Whether a box is, or stands for, a task that is searched for. */
export function contains(box: Box, search: string): boolean {
  return matching(box.task ? [box.task, ...box.hidden] : box.hidden, search).length > 0;
}
