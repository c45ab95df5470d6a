import type { ComponentChildren } from "preact";

import { exactText, markedNumber, visible } from "../exact";

/** A JSON value as indented text, exactly as it is stored. */
export function Json(props: { value: unknown }) {
  return <pre class="json">{exactText(props.value)}</pre>;
}

/** A JSON value as people read it: an object as a list of its fields, a text as paragraphs. */
export function Content(props: { value: unknown }) {
  const { value } = props;
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return <div class="content">{simple(value)}</div>;
  }
  return (
    <dl class="content">
      {Object.entries(value).map(([name, part]) => (
        <div key={name}>
          <dt>{visible(name)}</dt>
          <dd>{simple(part)}</dd>
        </div>
      ))}
    </dl>
  );
}

function simple(value: unknown): ComponentChildren {
  if (typeof value === "string") return <p class="text">{markedNumber(value) ?? visible(value)}</p>;
  const isList = Array.isArray(value) && value.every((part) => typeof part === "string");
  if (isList && value.length > 0) {
    return (
      <ul>
        {value.map((part, index) => (
          <li key={index}>{markedNumber(part) ?? visible(part)}</li>
        ))}
      </ul>
    );
  }
  if (typeof value === "object" && value !== null) return <Json value={value} />;
  return <p class="text">{exactText(value)}</p>;
}
