import { Frame } from "../components/frame";

/** To be written. */
export function Inbox() {
  return <Frame title="Inbox">{null}</Frame>;
}
