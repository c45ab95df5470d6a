import { Frame } from "../components/frame";

/** To be written. */
export function Project(_props: { params: Record<string, string> }) {
  return <Frame title="Project">{null}</Frame>;
}
