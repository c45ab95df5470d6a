import { Frame } from "../components/frame";

/** To be written. */
export function Conversation(_props: { params: Record<string, string> }) {
  return <Frame title="Conversation">{null}</Frame>;
}
