import { useQuery } from "@urql/preact";
import type { TargetedSubmitEvent } from "preact";

import { Empty } from "../components/empty";
import { ProjectChoice, useChoose } from "../components/filters";
import { Frame } from "../components/frame";
import { Loaded } from "../components/loaded";
import { counted, formatCount } from "../components/numbers";
import { Pager, pageOf } from "../components/pager";
import { nameOf } from "../components/person";
import { inWords } from "../components/status";
import { Table } from "../components/table";
import { Time } from "../components/time";
import {
  AllChangesDocument,
  type ConversationRowFragment,
  ConversationsDocument,
  FoundMessagesDocument,
  type FoundMessagesQuery,
} from "../generated/operations";
import { useLiveQuery } from "../live";
import { Link } from "../router";
import { authorOf } from "./conversation-message";
import { withEllipsis } from "./conversation-parts";

const SIZE = 25;

/** All conversations, or the messages that a search finds in them. */
export function Conversations({ query }: { query: URLSearchParams }) {
  const words = query.get("q");
  return (
    <Frame title="Conversations" actions={<Search words={words ?? ""} />}>
      {words ? <Found words={words} query={query} /> : <List query={query} />}
    </Frame>
  );
}

function Search({ words }: { words: string }) {
  const choose = useChoose();
  function submit(event: TargetedSubmitEvent<HTMLFormElement>) {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    choose({ q: String(form.get("q") ?? "").trim() || null });
  }
  return (
    <>
      <ProjectChoice />
      <form role="search" class="search" onSubmit={submit}>
        <input
          key={words}
          name="q"
          type="search"
          aria-label="Words in messages"
          placeholder='Words or "a phrase"'
          defaultValue={words}
        />
        <button>Search</button>
      </form>
    </>
  );
}

function List({ query }: { query: URLSearchParams }) {
  const project = query.get("project");
  const inProject = project ? { projectId: { eq: project } } : {};
  const conversations = useLiveQuery({
    query: ConversationsDocument,
    variables: { ...pageOf(query, SIZE), where: inProject },
    changes: AllChangesDocument,
    changesOf: { where: { entityType: { in: ["Conversation", "Message"] }, ...inProject } },
    interval: 2_000,
  });
  return (
    <Loaded of={conversations}>
      {({ conversations: { nodes, pageInfo } }) =>
        nodes.length === 0 ? (
          <Empty title="There is no conversation yet">
            <p>
              Programs store what people and agents say to each other with <code>startConversation</code> and{" "}
              <code>appendMessages</code>. <code>troupe import chats</code> imports a file of them.
            </p>
          </Empty>
        ) : (
          <>
            <Table caption="Conversations" stacks heads={["Conversation", "With", "Project", "#Messages", "Last change"]}>
              {nodes.map((conversation) => (
                <Row key={conversation.id} conversation={conversation} />
              ))}
            </Table>
            <Pager pageInfo={pageInfo} label="Pages of conversations" />
          </>
        )
      }
    </Loaded>
  );
}

function Row({ conversation }: { conversation: ConversationRowFragment }) {
  const { id, title, status, agent, user, project, counted: messages, updatedAt } = conversation;
  const summary = withEllipsis(conversation.summary);
  return (
    <tr>
      <th scope="row">
        <Link to="/conversations/:id" params={{ id }}>
          {title || summary || "Without a title"}
        </Link>
        {title && summary && conversation.summary !== title && <span class="detail">{summary}</span>}
        {status === "ARCHIVED" && <span class="detail">Archived</span>}
      </th>
      <td data-head="With">{[agent?.name, user && nameOf(user)].filter(Boolean).join(", ")}</td>
      <td data-head="Project">
        {project && (
          <Link to="/projects/:id" params={{ id: project.id }}>
            {project.name}
          </Link>
        )}
      </td>
      <td class="number" data-head="Messages">
        {formatCount(messages.totalCount)}
      </td>
      <td data-head="Last change">
        <Time at={updatedAt} />
      </td>
    </tr>
  );
}

function Found({ words, query }: { words: string; query: URLSearchParams }) {
  const project = query.get("project");
  const [found, execute] = useQuery({
    query: FoundMessagesDocument,
    variables: {
      query: words,
      ...pageOf(query, SIZE),
      where: project ? { conversation: { projectId: { eq: project } } } : {},
    },
    requestPolicy: "cache-and-network",
  });
  return (
    <Loaded of={{ ...found, read: () => execute({ requestPolicy: "network-only" }) }}>
      {({ searchMessages: { totalCount, nodes, pageInfo } }) =>
        nodes.length === 0 ? (
          <Empty title="No message has these words">
            <p>Whole words are found, in any order: other endings are other words.</p>
          </Empty>
        ) : (
          <>
            <p class="note" role="status">
              {counted(totalCount, "message")}, the best matches first
            </p>
            <ol class="hits">
              {nodes.map((message) => (
                <Hit key={message.id} message={message} />
              ))}
            </ol>
            <Pager pageInfo={pageInfo} label="Pages of messages" />
          </>
        )
      }
    </Loaded>
  );
}

function Hit({ message }: { message: FoundMessagesQuery["searchMessages"]["nodes"][number] }) {
  const { sequence, sender, timestamp, highlights, conversation } = message;
  const author = authorOf(message);
  return (
    <li>
      <Link to="/conversations/:id" params={{ id: conversation.id }} query={{ message: String(sequence) }}>
        {conversation.title || withEllipsis(conversation.summary) || "Without a title"}
      </Link>
      <p class="text">
        {highlights.map(({ text, isMatch }, index) => (isMatch ? <mark key={index}>{text}</mark> : text))}
      </p>
      <p class="note">
        {author}
        {author !== inWords(sender) && ` (${inWords(sender).toLowerCase()})`}
        {conversation.project && `, in ${conversation.project.name}`}, <Time at={timestamp} />
      </p>
    </li>
  );
}
