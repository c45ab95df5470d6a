import { useLayoutEffect, useRef } from "preact/hooks";

import { Empty } from "../components/empty";
import { Frame } from "../components/frame";
import { Loaded, isBadAddress } from "../components/loaded";
import { nameOf } from "../components/person";
import type { ConversationQuery } from "../generated/operations";
import { Link } from "../router";
import { Message } from "./conversation-message";
import { useMessages } from "./conversation-messages";
import { withEllipsis } from "./conversation-parts";
import { Missing } from "./missing";

type Conversation = NonNullable<ConversationQuery["conversation"]>;

/** A conversation as one reads it, with new messages as they come; `message` in the URL is a place in it. */
export function Conversation({ params, query }: { params: Record<string, string>; query: URLSearchParams }) {
  const place = query.get("message") ?? "";
  const around = /^\d{1,9}$/.test(place) ? Number(place) : null;
  // Another place is another range.
  return <Messages key={around} id={params.id ?? ""} around={around} />;
}

function Messages({ id, around }: { id: string; around: number | null }) {
  const { messages, readOlder, readNewer, isReading, ...found } = useMessages(id, around);
  useReadingPlace(messages.map(({ id }) => id), around);
  const isMissing = found.data ? !found.data.conversation : found.error && isBadAddress(found.error);
  if (isMissing) return <Missing what="conversation" />;
  const conversation = found.data?.conversation;
  const title = conversation ? conversation.title || withEllipsis(conversation.summary) || "Conversation" : "Conversation";
  return (
    <Frame
      title={title}
      above={<Link to="/conversations">Conversations</Link>}
      actions={conversation && <About conversation={conversation} />}
    >
      <Loaded of={found}>
        {() => (
          <>
            {readOlder && (
              <button class="more" onClick={readOlder} disabled={isReading}>
                Show older messages
              </button>
            )}
            {messages.length === 0 ? (
              <Empty title="No message yet">
                <p>
                  Programs add them with <code>appendMessages</code>; they show up here at once.
                </p>
              </Empty>
            ) : (
              <div role="log" aria-label="Messages">
                <ol class="messages">
                  {messages.map((message) => (
                    <Message key={message.id} message={message} isFound={message.sequence === around} />
                  ))}
                </ol>
              </div>
            )}
            {readNewer && (
              <p class="more">
                <button onClick={readNewer} disabled={isReading}>
                  Show newer messages
                </button>
                <Link class="button" to="/conversations/:id" params={{ id }}>
                  Go to the newest
                </Link>
              </p>
            )}
          </>
        )}
      </Loaded>
    </Frame>
  );
}

function About({ conversation: { agent, user, project, status } }: { conversation: Conversation }) {
  const people = [user, agent].filter((one) => one !== null && one !== undefined);
  return (
    <span class="note">
      {people.length > 0 && `${people.map((one) => ("name" in one ? one.name : nameOf(one))).join(" and ")} `}
      {project && (
        <>
          in{" "}
          <Link to="/projects/:id" params={{ id: project.id }}>
            {project.name}
          </Link>
        </>
      )}
      {status === "ARCHIVED" && ", archived"}
    </span>
  );
}

/** Keeps what one reads in its place while messages are added at both ends.
 *
 * At first it shows the message at `around`, or else the newest. Who reads the end stays there.
 */
function useReadingPlace(ids: string[], around: number | null) {
  const last = useRef({ ids: [] as string[], height: 0 });
  useLayoutEffect(() => {
    const page = document.documentElement;
    const before = last.current;
    const height = page.scrollHeight;
    if (ids.length > 0 && before.ids.length === 0) {
      if (around === null) page.scrollTop = height;
      else document.getElementById(`message-${around}`)?.scrollIntoView({ block: "center" });
    } else if (ids[0] !== before.ids[0]) {
      page.scrollTop += height - before.height;
    } else if (ids.at(-1) !== before.ids.at(-1) && page.scrollTop + page.clientHeight > before.height - 80) {
      page.scrollTop = height;
    }
    last.current = { ids, height };
  }, [ids.join(), around]);
}
