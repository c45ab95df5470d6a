import { Frame } from "../components/frame";

/** To be written. */
export function Agents() {
  return <Frame title="Agents">{null}</Frame>;
}
