import { Button, useGraphiQLActions } from "@graphiql/react";
import type { FormEvent } from "react";

import { storeToken } from "../../plain/assets/token.js";

/** A form for the access token if the server requires one, otherwise a button to open it. */
export function TokenField(props: {
  isRefused: boolean;
  setRefused: (isRefused: boolean) => void;
}) {
  const { introspect } = useGraphiQLActions();

  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    storeToken(String(new FormData(event.currentTarget).get("token")));
    props.setRefused(false);
    // The server may allow introspection only with a token.
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
      <p>In development, the server prints one when it starts; “troupe tokens create” creates more.</p>
    </form>
  );
}
