import { Empty } from "../components/empty";
import { Frame } from "../components/frame";
import { Link } from "../router";

/** In the place of a page that does not exist, or whose object does not. */
export function Missing(props: { what?: string }) {
  const what = props.what ?? "page";
  return (
    <Frame title="Not found">
      <Empty title={`This ${what} does not exist, or you may not see it.`}>
        <p>
          <Link to="/">Go to the projects</Link>
        </p>
      </Empty>
    </Frame>
  );
}
