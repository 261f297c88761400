import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { patch, post } from "../../api/client";
import { counted, word } from "../../api/format";
import { visible } from "../../api/plain";
import type { Attention as Asked, Task } from "../../api/types";
import { Acting } from "../../components/Acting";
import { Moment } from "../../components/Age";
import { Confirm } from "../../components/Confirm";
import { Problem } from "../../components/Problem";

/** A task that keeps failing and continues, with why, and what settles that. */
export function Attention({ task, attention }: { task: Task; attention: Asked }) {
  const cache = useQueryClient();
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<unknown>();
  const name = task.name ?? "";
  const { lastFailure, failedAttempts } = attention;
  const retry = task.status?.waiting?.find(({ reason }) => reason === "WAIT_REASON_RETRY_DELAY")?.until;
  const act = async (call: Promise<unknown>) => {
    setBusy(true);
    setProblem(undefined);
    try {
      await call;
    } catch (error) {
      // It may have ended meanwhile.
      setProblem(error);
    }
    await cache.invalidateQueries();
    setBusy(false);
  };
  const suspend = () =>
    patch(`${name}?updateMask=desiredState`, { name, desiredState: "DESIRED_STATE_SUSPENDED" });
  return (
    <section className="answer card" aria-label="Needs attention">
      <p className="question">
        {counted(failedAttempts ?? 0, "attempt has", "attempts have")} failed, and the task continues
        {retry && (
          <>
            {" "}
            at <Moment at={retry} />
          </>
        )}
        .
      </p>
      {lastFailure && (
        <>
          <p className="problem">
            {word(lastFailure.class, "FAILURE_CLASS_")}: {visible(lastFailure.message)}
          </p>
          {lastFailure.hint && <p className="quiet">{visible(lastFailure.hint)}</p>}
        </>
      )}
      <Acting otherwise={<p className="quiet">Viewers cannot acknowledge.</p>}>
        <div className="choices">
          <button
            type="button"
            className="primary"
            disabled={busy}
            onClick={() => void act(post(`${name}:acknowledge`, { reason: "by a person" }))}
          >
            Acknowledge
          </button>
          <button type="button" disabled={busy} onClick={() => void act(suspend())}>
            Suspend
          </button>
          <Confirm
            label="Cancel"
            question="Cancel this task? What it has done so far is kept."
            disabled={busy}
            onConfirm={() => act(post(`${name}:cancel`, { reason: "by a person" }))}
          />
        </div>
      </Acting>
      <Problem error={problem} />
    </section>
  );
}
