import type { TargetedSubmitEvent } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

import { useAction } from "../action";
import { UserErrors } from "../components/failure";
import { LoginDocument } from "../generated/operations";
import { signIn } from "../session";

/** The form to sign in, by username and password or by an access token. */
export function Login(props: { notice?: string | undefined }) {
  const [byToken, setByToken] = useState(false);
  const [isNoticed, setNoticed] = useState(false);
  const { run, isRunning, errors, dismiss } = useAction(LoginDocument);
  const form = useRef<HTMLFormElement>(null);
  useEffect(() => {
    document.title = "Sign in · Troupe";
  }, []);
  // `autofocus` works only when the browser loads a page.
  useEffect(() => form.current?.querySelector("input")?.focus(), [byToken]);

  async function submit(event: TargetedSubmitEvent<HTMLFormElement>) {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    const field = (name: string) => String(form.get(name) ?? "");
    if (byToken) return signIn(field("token"));
    const input = { username: field("username"), password: field("password") };
    const payload = await run({ input });
    if (payload?.token) signIn(payload.token, { isIssued: true });
  }

  function change() {
    dismiss();
    setNoticed(true);
    setByToken(!byToken);
  }

  return (
    <main class="login">
      <form ref={form} onSubmit={submit} class="panel">
        <h1>Troupe</h1>
        {props.notice && !isNoticed && <p role="status">{props.notice}</p>}
        <UserErrors errors={errors} />
        {byToken ? (
          <label key="token">
            Access token
            <input name="token" type="password" autoComplete="off" placeholder="troupe_…" required />
          </label>
        ) : (
          <>
            <label>
              Username
              <input name="username" autoComplete="username" required />
            </label>
            <label>
              Password
              <input name="password" type="password" autoComplete="current-password" required />
            </label>
          </>
        )}
        <button class="primary" disabled={isRunning}>
          Sign in
        </button>
        <button type="button" class="plain" onClick={change}>
          {byToken ? "Use a username and password" : "Use an access token"}
        </button>
        {byToken ? (
          <p class="hint">
            In development, the server prints a link with one when it starts; <code>troupe tokens create</code>{" "}
            makes more.
          </p>
        ) : (
          <p class="hint">
            An administrator sets the first password of a user with <code>troupe users password</code>. If nobody
            has one yet, use an access token.
          </p>
        )}
      </form>
    </main>
  );
}
