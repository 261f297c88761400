import { useState } from "react";
import { checkToken } from "../api/client";
import { setToken } from "../api/token";

/** Asks for a token, and checks it by a call that every role may make. */
export function SignIn() {
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const submit = async (given: string) => {
    setBusy(true);
    setError("");
    try {
      await checkToken(given);
      setToken(given);
    } catch (failed) {
      setError(failed instanceof Error ? failed.message : "the token was not accepted");
    }
    setBusy(false);
  };
  return (
    <main className="sign-in">
      <h1>Rota</h1>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          const given = String(new FormData(event.currentTarget).get("token") ?? "").trim();
          if (given) {
            void submit(given);
          }
        }}
      >
        <label>
          Token
          <input name="token" type="password" autoComplete="off" required disabled={busy} />
        </label>
        <button type="submit" className="primary" disabled={busy}>
          Sign in
        </button>
        <p role="alert">{error}</p>
      </form>
      <p className="quiet">
        The token of the command line: <code>rota ui</code> prints a link that signs in. It is kept in this
        tab only.
      </p>
    </main>
  );
}
