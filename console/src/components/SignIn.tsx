import { useEffect, useState } from "react";
import { checkToken } from "../api/client";
import { signedOutBecause, signIn, signInWithoutToken } from "../api/token";
import { Problem } from "./Problem";

/** Asks for a token, unless none is required, and checks it by a call that every role may make. */
export function SignIn() {
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(true);
  useEffect(() => {
    checkToken("")
      .then(signInWithoutToken)
      .catch(() => setBusy(false));
  }, []);
  const submit = async (given: string) => {
    setBusy(true);
    setError(undefined);
    try {
      await checkToken(given);
      signIn(given);
    } catch (failed) {
      setError(failed);
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
      </form>
      <Problem error={error ?? signedOutBecause()} />
      <p className="quiet">
        The token of the command line: <code>rota ui</code> prints a link that signs in. It is kept in this
        tab only.
      </p>
    </main>
  );
}
