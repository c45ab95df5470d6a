import type { CombinedError } from "@urql/core";
import type { ComponentChildren } from "preact";

import { Failure, failureMessage } from "./failure";

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
      {error && <Failure message={failureMessage(error)} onRetry={read} />}
      {data ? props.children(data) : !error && <Loading />}
    </>
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
