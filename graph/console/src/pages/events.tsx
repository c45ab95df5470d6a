import { Frame } from "../components/frame";

/** To be written. */
export function Events() {
  return <Frame title="Events">{null}</Frame>;
}
