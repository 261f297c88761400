import { isTransient } from "../api/client";
import { visible } from "../api/plain";
import { Problem } from "./Problem";
import type { Unused } from "./useReply";

/** Replies of a person to what is no longer asked: someone else was faster, or the question has ended. */
export function UnusedReplies({ replies, onClose }: { replies: readonly Unused[]; onClose: () => void }) {
  if (replies.length === 0) {
    return null;
  }
  return (
    <section className="card" aria-label="Not used">
      {replies.map(({ asked, given, error }, index) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: replies are only added
        <div key={index}>
          <p className="problem" role="alert">
            No longer asked: {visible(asked)} Someone else may have replied. {fateOf(error)}
          </p>
          <pre>{given}</pre>
          <Problem error={error} />
        </div>
      ))}
      <button type="button" onClick={onClose}>
        Close
      </button>
    </section>
  );
}

/** Returns what has become of a reply. A call without an answer may have been carried out. */
function fateOf(error: unknown): string {
  if (error === undefined) {
    return "Yours was not sent:";
  }
  return isTransient(error) ? "Yours may have arrived:" : "Yours was not accepted:";
}
