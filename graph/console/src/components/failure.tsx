import type { CombinedError } from "@urql/core";

import type { UserError } from "../action";

/** An error of a request in words for a person: the server's, or that it did not answer. */
export function failureMessage(error: CombinedError): string {
  if (error.networkError) return `The server cannot be reached: ${error.networkError.message}.`;
  return error.graphQLErrors.map(({ message }) => message).join(" ");
}

/** A panel that says what failed, and offers to try again. */
export function Failure(props: { message: string; onRetry?: () => void }) {
  return (
    <div class="panel failure" role="alert">
      <p>{props.message}</p>
      {props.onRetry && <button onClick={props.onRetry}>Try again</button>}
    </div>
  );
}

/** Why a mutation was not done; nothing if it was. */
export function UserErrors(props: { errors: readonly UserError[] }) {
  if (props.errors.length === 0) return null;
  return (
    <div class="panel failure" role="alert">
      {props.errors.map(({ message }) => (
        <p key={message}>{message}</p>
      ))}
    </div>
  );
}
