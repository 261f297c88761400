import { Heading } from "./Heading";
import { Problem } from "./Problem";

/** A page whose record is not read yet, or cannot be. */
export function Unread({ title, error }: { title: string; error: unknown }) {
  return (
    <>
      <Heading what={title} />
      {error ? <Problem error={error} /> : <p role="status">Loading…</p>}
    </>
  );
}
