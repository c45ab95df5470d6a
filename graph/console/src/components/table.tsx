import type { ComponentChildren } from "preact";

/** A table that scrolls sideways by itself where it is too wide. The rows are its children. */
export function Table(props: {
  caption: string;
  /** The heads of the columns; one that begins with `#` is of numbers, aligned to the right. */
  heads: string[];
  children: ComponentChildren;
}) {
  return (
    <div class="table" role="region" aria-label={props.caption} tabIndex={0}>
      <table>
        <caption class="unseen">{props.caption}</caption>
        <thead>
          <tr>
            {props.heads.map((head) => (
              <th key={head} scope="col" class={head.startsWith("#") ? "number" : undefined}>
                {head.replace(/^#/, "")}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>{props.children}</tbody>
      </table>
    </div>
  );
}
