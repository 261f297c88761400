import { useEffect, useState } from "react";
import { openSession, resumeSession, type SignInOptions, signInOptions } from "../api/session";
import { isExpired, signedOutBecause } from "../api/token";
import { Problem } from "./Problem";
import { tabTitle } from "./title";

/** Asks for a token, unless the browser has a session or none is required. */
export function SignIn() {
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(true);
  const [options, setOptions] = useState<SignInOptions>();
  useEffect(() => {
    resumeSession().catch(() => setBusy(false));
    // Without an answer the token is left.
    signInOptions().then(setOptions, () => {});
  }, []);
  const submit = async (given: string) => {
    setBusy(true);
    setError(undefined);
    try {
      await openSession(given);
    } catch (failed) {
      setError(failed);
    }
    setBusy(false);
  };
  return (
    <main className="sign-in">
      <title>{tabTitle("Sign in")}</title>
      <h1>Rota</h1>
      {options?.browserPath && (
        <p>
          {/* A page that has waited for its session keeps what was typed: the issuer gets a window of its own. */}
          <a
            className="primary"
            href={signInAddress(options.browserPath)}
            target={isExpired() ? "_blank" : undefined}
            rel="noopener"
          >
            Sign in with {options.name}
          </a>
        </p>
      )}
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
        The token of the command line: <code>rota ui</code> prints a link that signs in. The page does not
        keep it: this browser gets a session, which <strong>Sign out</strong> ends.
      </p>
    </main>
  );
}

/** Returns where a person signs in, who comes back to this page. */
function signInAddress(path: string): string {
  return `${path}?to=${encodeURIComponent(location.pathname + location.search)}`;
}
