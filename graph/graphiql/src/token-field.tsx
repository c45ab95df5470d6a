import { Button, useGraphiQLActions } from "@graphiql/react";
import type { FormEvent } from "react";

import { keepToken } from "../../plain/assets/token.js";

/** Asks for an access token when the server wants one, and is a mere button otherwise. */
export function TokenField(props: {
  isRefused: boolean;
  setRefused: (isRefused: boolean) => void;
}) {
  const { introspect } = useGraphiQLActions();

  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    keepToken(String(new FormData(event.currentTarget).get("token")));
    props.setRefused(false);
    // The documentation may be for those only who have a token.
    void introspect();
  }

  if (!props.isRefused) {
    return <Button onClick={() => props.setRefused(true)}>Change the access token</Button>;
  }
  return (
    <form className="token" onSubmit={submit}>
      <label>
        Access token
        <input name="token" type="password" autoComplete="off" placeholder="troupe_…" required />
      </label>
      <Button type="submit">Use it</Button>
      <p>In development the server prints one when it starts; “troupe tokens create” makes more.</p>
    </form>
  );
}
