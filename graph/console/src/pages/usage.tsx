import { Frame } from "../components/frame";

/** To be written. */
export function Usage() {
  return <Frame title="Usage">{null}</Frame>;
}
