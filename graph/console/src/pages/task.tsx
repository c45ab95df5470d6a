import { Frame } from "../components/frame";

/** To be written. */
export function Task(_props: { params: Record<string, string> }) {
  return <Frame title="Task">{null}</Frame>;
}
