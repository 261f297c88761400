import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { post } from "../../api/client";
import { visible } from "../../api/plain";
import { refresh } from "../../api/refresh";
import type { StepStatus } from "../../api/types";
import { Acting } from "../../components/Acting";
import { Problem } from "../../components/Problem";

/** An approval with its prompt, and the form that decides it. */
export function Decision({ workflow, step }: { workflow: string; step: StepStatus }) {
  const cache = useQueryClient();
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<unknown>();
  const [comment, setComment] = useState("");
  const [isDecided, setIsDecided] = useState(false);
  const decide = async (decision: string) => {
    setBusy(true);
    setProblem(undefined);
    try {
      await post(`${workflow}:decide`, { step: step.name, decision, comment });
      setIsDecided(true);
    } catch (error) {
      // Another person may have been faster.
      setProblem(error);
    }
    await refresh(cache, ["approvals"]);
    setBusy(false);
  };
  if (isDecided) {
    return <p role="status">Decided.</p>;
  }
  return (
    <section className="answer" aria-label={`Decision on ${step.name}`}>
      <p className="question">{visible(step.prompt)}</p>
      <Acting otherwise={<p className="quiet">Viewers cannot decide.</p>}>
        <label>
          Comment
          <textarea
            value={comment}
            maxLength={4096}
            disabled={busy}
            onChange={(event) => setComment(event.target.value)}
          />
        </label>
        <div className="choices">
          <button
            type="button"
            className="primary"
            disabled={busy}
            onClick={() => void decide("STEP_DECISION_APPROVE")}
          >
            Approve {step.name}
          </button>
          <button type="button" disabled={busy} onClick={() => void decide("STEP_DECISION_REJECT")}>
            Reject {step.name}
          </button>
        </div>
      </Acting>
      <Problem error={problem} />
    </section>
  );
}
