import { useNavigate } from "@tanstack/react-router";
import { useRef, useState } from "react";
import { get, newKey, patch, post } from "../../api/client";
import { changeOfLatest } from "../../api/conflict";
import { query } from "../../api/format";
import type { Task, TaskSpec } from "../../api/types";
import { Problem } from "../../components/Problem";
import { LONGEST, readAs, write } from "../workflows/manifest";
import { editable, replayedBy, replayOf } from "./replay";

/** The specification of a task that has failed, to be changed and run again. */
export function EditRetry({ task }: { task: Task }) {
  const navigate = useNavigate();
  const [text, setText] = useState<string>();
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<unknown>();
  const key = useRef(newKey());
  const run = async (spec: TaskSpec) => {
    setBusy(true);
    setProblem(undefined);
    try {
      const [, namespace = ""] = task.name?.split("/") ?? [];
      const headers = { "Idempotency-Key": key.current };
      const made = await post<Task>(`namespaces/${namespace}/tasks`, replayOf(task, spec), headers);
      // It is no dead letter any more.
      await changeOfLatest<Task>(
        task,
        () => get<Task>(task.name ?? ""),
        ({ name, labels }, headers) =>
          patch(
            `${name}${query({ updateMask: "labels" })}`,
            { name, labels: replayedBy(labels, made) },
            headers,
          ),
      );
      const id = made.name?.split("/")[3] ?? "";
      await navigate({ to: "/tasks/$namespace/$id", params: { namespace, id } });
    } catch (error) {
      setProblem(error);
    }
    setBusy(false);
  };
  const secret = task.spec?.secretNames?.[0];
  if (secret) {
    return (
      <p className="quiet">
        The task has the secret {secret}, which no page can copy: change it with{" "}
        <code>rota dead-letters replay --edit --secret-env</code>.
      </p>
    );
  }
  if (text === undefined) {
    return (
      <button type="button" onClick={() => setText(write(editable(task)))}>
        Edit and retry
      </button>
    );
  }
  return (
    <section aria-label="Edit and retry">
      <h2>Edit and retry</h2>
      <form
        className="answer"
        onSubmit={(event) => {
          event.preventDefault();
          const { spec, error } = readAs<TaskSpec>(text, "Task", "prompt");
          if (spec) {
            void run(spec);
          } else {
            setProblem(new Error(error));
          }
        }}
      >
        <label>
          Specification, in YAML
          <textarea
            value={text}
            rows={12}
            maxLength={LONGEST}
            spellCheck={false}
            disabled={busy}
            onChange={(event) => {
              // Another text is another task.
              key.current = newKey();
              setText(event.target.value);
            }}
          />
        </label>
        <div>
          <button type="submit" className="primary" disabled={busy}>
            Run the changed task
          </button>{" "}
          <button type="button" disabled={busy} onClick={() => setText(undefined)}>
            Discard
          </button>
        </div>
      </form>
      <Problem error={problem} />
    </section>
  );
}
