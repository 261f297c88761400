import { ApiError } from "../api/client";

/** An error of a call, with what can be done about it. */
export function Problem({ error }: { error: unknown }) {
  if (!error) {
    return null;
  }
  return (
    <div role="alert">
      <p className="problem">{error instanceof Error ? error.message : String(error)}</p>
      {error instanceof ApiError && (error.hint || error.reason) && (
        <p className="quiet">
          {error.hint} {error.reason && <code>{error.reason}</code>}
        </p>
      )}
    </div>
  );
}
