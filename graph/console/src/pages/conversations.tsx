import { Frame } from "../components/frame";

/** To be written. */
export function Conversations() {
  return <Frame title="Conversations">{null}</Frame>;
}
