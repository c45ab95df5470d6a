import type { CombinedError } from "@urql/core";
import type { ComponentChildren } from "preact";

import { Link, usePlace } from "../router";
import { Empty } from "./empty";
import { Failure, failureMessage } from "./failure";

/** The codes of errors in what a page asks for. It asks for what its address says. */
const BAD = ["BAD_REQUEST", "BAD_USER_INPUT"];

/** What is read, once it is there; until then that it is being loaded, or why it cannot be.
 *
 *     <Loaded of={useLiveQuery(…)}>{(data) => …}</Loaded>
 */
export function Loaded<Data>(props: {
  of: { data?: Data | undefined; error?: CombinedError | undefined; read: () => void };
  children: (data: Data) => ComponentChildren;
}) {
  const { data, error, read } = props.of;
  return (
    <>
      {error && (isBadAddress(error) ? <BadAddress error={error} /> : <Failure message={failureMessage(error)} onRetry={read} />)}
      {data ? props.children(data) : !error && <Loading />}
    </>
  );
}

/** Whether an error is in what the address of a page asks for. */
export function isBadAddress(error: CombinedError): boolean {
  return error.graphQLErrors.some(({ extensions }) => BAD.includes(String(extensions?.code)));
}

/** In the place of a page whose address has values that the API does not take. */
function BadAddress(props: { error: CombinedError }) {
  const { path } = usePlace();
  return (
    <Empty title="The address of this page is not valid">
      <p>{failureMessage(props.error)}</p>
      <p>
        <Link to={path}>Show the page without what follows the question mark</Link>
      </p>
    </Empty>
  );
}

/** A line in the place of what is not there yet. */
export function Loading() {
  return (
    <p class="loading" role="status">
      Loading …
    </p>
  );
}
