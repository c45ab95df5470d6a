import { Json } from "../components/json";
import { nameOf } from "../components/person";
import { inWords } from "../components/status";
import { Time } from "../components/time";
import type { MessageAuthorFragment, ShownMessageFragment } from "../generated/operations";
import { partsOf, toolOf } from "./conversation-parts";

/** How much of a folded text its summary shows. */
const BEGINNING = 90;

/** Instructions longer than this are folded, like all results of tools. */
const LONG = 400;

/** Who wrote a message: the name, or else the role. */
export function authorOf({ sender, user, agent }: MessageAuthorFragment): string {
  return user ? nameOf(user) : (agent?.name ?? inWords(sender));
}

/** A message as one reads it: text in full; calls of tools and their results folded. */
export function Message({ message, isFound }: { message: ShownMessageFragment; isFound: boolean }) {
  const { sender, content, parts, sequence, timestamp, editedAt, model, metadata } = message;
  const author = authorOf(message);
  const role = inWords(sender);
  const tool = sender === "TOOL" ? toolOf(metadata) : null;
  const isFolded = !isFound && (sender === "TOOL" || (sender === "SYSTEM" && content.length > LONG));
  return (
    <li class={`message from-${sender.toLowerCase()}${isFound ? " found" : ""}`} id={`message-${sequence}`}>
      <header>
        <strong>{tool ?? author}</strong>
        {(tool || author !== role) && <span>{role}</span>}
        {model && <span>{model.name}</span>}
        <Time at={timestamp} />
        {editedAt && (
          <span>
            edited <Time at={editedAt} />
          </span>
        )}
      </header>
      {content !== "" &&
        (isFolded ? (
          <details>
            <summary>{beginning(content)}</summary>
            <p class="text">{content}</p>
          </details>
        ) : (
          <p class="text">{content}</p>
        ))}
      {partsOf(parts).map(({ title, value }, index) => (
        <details key={index}>
          <summary>{title}</summary>
          <Json value={value} />
        </details>
      ))}
    </li>
  );
}

function beginning(text: string): string {
  const line = text.trim().replace(/\s+/g, " ");
  return line.length > BEGINNING ? `${line.slice(0, BEGINNING)} …` : line;
}
