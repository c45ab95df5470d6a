import type { TypedDocumentNode } from "@graphql-typed-document-node/core";
import { type AnyVariables, useMutation } from "@urql/preact";
import { useCallback, useState } from "preact/hooks";

import { failureMessage } from "./components/failure";

/** What a mutation answered that could not be done; `__typename` and the rest as it is selected. */
export type UserError = { message: string; code?: string; path?: readonly string[] };

/** A mutation with one root field, as buttons and forms use it.
 *
 * `run` resolves to the payload if it was done, else to null, and `errors` says why.
 */
export function useAction<Data extends object, Variables extends AnyVariables>(
  document: TypedDocumentNode<Data, Variables>,
) {
  type Payload = NonNullable<Data[Exclude<keyof Data, "__typename">]>;
  const [{ fetching }, execute] = useMutation<Data, Variables>(document);
  const [errors, setErrors] = useState<readonly UserError[]>([]);
  const run = useCallback(
    async (variables: Variables): Promise<Payload | null> => {
      setErrors([]);
      const { data, error } = await execute(variables);
      const [payload] = Object.values(data ?? {}).filter((value) => typeof value === "object");
      const found: readonly UserError[] = error
        ? [{ message: failureMessage(error) }]
        : ((payload as { userErrors?: UserError[] } | null)?.userErrors ?? []);
      setErrors(found);
      return found.length === 0 ? (payload as Payload) : null;
    },
    [execute],
  );
  return { run, isRunning: fetching, errors, dismiss: useCallback(() => setErrors([]), []) };
}
