import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { get } from "../../api/client";
import { word } from "../../api/format";
import { visible } from "../../api/plain";
import type { FetchArtifactsResponse, Task } from "../../api/types";
import { Acting } from "../../components/Acting";
import { Problem } from "../../components/Problem";
import { type Unused, useReply } from "../../components/useReply";
import { Continue } from "../tasks/Continue";
import { canBeContinued } from "../tasks/continuation";
import { EditRetry } from "../tasks/EditRetry";
import { DISMISSED, settle } from "../tasks/settle";
import { titleOf } from "../tasks/title";

/** Forms of a card, each open on demand: they need all of the specification, which lists have not. */
type Form = "edit" | "continue";

/** Work that has not passed its checks, and what settles that: it is run again, continued or left as it is. */
export function FailedChecks({ task, onUnused }: { task: Task; onUnused: (unused: Unused) => void }) {
  const cache = useQueryClient();
  const [form, setForm] = useState<Form>();
  const asked = `The work of ${titleOf(task)} has not passed its checks.`;
  const { busy, problem, send } = useReply(asked, "", onUnused);
  const { class: failed, message, hint } = task.status?.failure ?? {};
  const dismiss = () =>
    send(
      "Dismiss",
      () => settle(task, DISMISSED),
      () => cache.invalidateQueries(),
    );
  return (
    <section className="answer card" aria-label="Failed checks">
      <p className="question">The work has not passed its checks, and the task has failed.</p>
      <p className="problem">
        {word(failed, "FAILURE_CLASS_")}: {visible(message)}
      </p>
      {hint && <p className="quiet">{visible(hint)}</p>}
      <Acting otherwise={<p className="quiet">Viewers cannot settle it.</p>}>
        <div className="choices">
          <button type="button" aria-expanded={form === "edit"} onClick={() => setForm("edit")}>
            Edit and retry
          </button>
          <button type="button" aria-expanded={form === "continue"} onClick={() => setForm("continue")}>
            Continue
          </button>
          <button type="button" disabled={busy} onClick={() => void dismiss()}>
            Dismiss
          </button>
        </div>
        {form && <Whole name={task.name ?? ""} form={form} onDiscard={() => setForm(undefined)} />}
      </Acting>
      <Problem error={problem} />
    </section>
  );
}

/** A form with the whole task. */
function Whole({ name, form, onDiscard }: { name: string; form: Form; onDiscard: () => void }) {
  const task = useQuery({ queryKey: ["task", name], queryFn: ({ signal }) => get<Task>(name, signal) });
  if (!task.data) {
    return task.error ? <Problem error={task.error} /> : <p role="status">Loading…</p>;
  }
  if (form === "edit") {
    return <EditRetry task={task.data} onDiscard={onDiscard} />;
  }
  return <Continuation task={task.data} />;
}

/** The form that continues a task, if that has left anything to continue: commands do not. */
function Continuation({ task }: { task: Task }) {
  const name = task.name ?? "";
  const found = useQuery({
    queryKey: ["artifacts", name, true],
    queryFn: ({ signal }) => get<FetchArtifactsResponse>(`${name}/artifacts`, signal),
  });
  if (!found.data) {
    return found.error ? <Problem error={found.error} /> : <p role="status">Loading…</p>;
  }
  if (!canBeContinued(found.data)) {
    return <p className="quiet">It has left no conversation that could be continued.</p>;
  }
  return <Continue task={task} comments={[]} />;
}
