import type { ComponentChildren } from "preact";

/** A table; the rows are its children. Where it is too wide, it scrolls sideways by itself.
 *
 * On narrow screens, each row of a table that `stacks` is a block of lines; `data-head` of a cell
 * names it there.
 */
export function Table(props: {
  caption: string;
  /** The heads of the columns; one that begins with `#` is of numbers, aligned to the right. */
  heads: string[];
  stacks?: boolean;
  children: ComponentChildren;
}) {
  return (
    <div class={props.stacks ? "table stacks" : "table"} role="region" aria-label={props.caption} tabIndex={0}>
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
