import { useState } from "react";
import { post } from "../../api/client";
import type { StepStatus } from "../../api/types";
import { Acting } from "../../components/Acting";
import { Problem } from "../../components/Problem";

/** The form that resolves a compensation which has failed. */
export function Resolve({
  workflow,
  step,
  onResolved,
}: {
  workflow: string;
  step: StepStatus;
  onResolved: () => void;
}) {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<unknown>();
  const [note, setNote] = useState("");
  const resolve = async (resolution: string) => {
    setBusy(true);
    setProblem(undefined);
    try {
      const failure = step.compensationFailures;
      await post(`${workflow}:resolveCompensation`, { step: step.name, resolution, note, failure });
      onResolved();
    } catch (error) {
      // Another person may have been faster.
      setProblem(error);
    }
    setBusy(false);
  };
  return (
    <section className="answer" aria-label={`Failed compensation of ${step.name}`}>
      <Acting otherwise={<p className="quiet">Viewers cannot resolve it.</p>}>
        <label>
          Reason
          <textarea
            value={note}
            maxLength={1024}
            disabled={busy}
            onChange={(event) => setNote(event.target.value)}
          />
        </label>
        <div className="choices">
          <button
            type="button"
            className="primary"
            disabled={busy}
            onClick={() => void resolve("COMPENSATION_RESOLUTION_RETRY")}
          >
            Compensate {step.name} again
          </button>
          <button type="button" disabled={busy} onClick={() => void resolve("COMPENSATION_RESOLUTION_DONE")}>
            Reversed by hand
          </button>
          <button type="button" disabled={busy} onClick={() => void resolve("COMPENSATION_RESOLUTION_SKIP")}>
            Leave the effects
          </button>
        </div>
      </Acting>
      <Problem error={problem} />
    </section>
  );
}
