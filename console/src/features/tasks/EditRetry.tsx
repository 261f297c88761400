import { useNavigate } from "@tanstack/react-router";
import { useRef, useState } from "react";
import { call, get, newKey, patch, post } from "../../api/client";
import { changeOfLatest } from "../../api/conflict";
import { query } from "../../api/format";
import type { Task, TaskSpec } from "../../api/types";
import { Problem } from "../../components/Problem";
import { CheckedYaml, CheckState } from "../workflows/CheckedYaml";
import { readAs, write } from "../workflows/manifest";
import { useChecked } from "../workflows/useChecked";
import type { Handle } from "../workflows/YamlEditor";
import { editable, replayedBy, replayOf } from "./replay";

/** The specification of a task that has failed, to be changed and run again. */
export function EditRetry({ task }: { task: Task }) {
  const [begin, setBegin] = useState<string>();
  const secret = task.spec?.secretNames?.[0];
  if (secret) {
    return (
      <p className="quiet">
        The task has the secret {secret}, which no page can copy: change it with{" "}
        <code>rota dead-letters replay --edit --secret-env</code>.
      </p>
    );
  }
  if (begin === undefined) {
    return (
      <button type="button" onClick={() => setBegin(write(editable(task)))}>
        Edit and retry
      </button>
    );
  }
  return <Specification task={task} begin={begin} discard={() => setBegin(undefined)} />;
}

/** What is typed, checked by the server as the task that it would become. */
function Specification({ task, begin, discard }: { task: Task; begin: string; discard: () => void }) {
  const navigate = useNavigate();
  const [text, setText] = useState(begin);
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<unknown>();
  const editor = useRef<Handle>(null);
  const key = useRef(newKey());
  const [, namespace = ""] = task.name?.split("/") ?? [];
  const checked = useChecked<TaskSpec>(text, task.name ?? "", {
    kind: "Task",
    read: (text) => readAs<TaskSpec>(text, "Task", "prompt"),
    ask: (spec, signal) => {
      const path = `namespaces/${namespace}/tasks${query({ validateOnly: "true" })}`;
      return call("POST", path, replayOf(task, spec), signal);
    },
  });
  const isCurrent = checked?.text === text;
  const run = async (spec: TaskSpec) => {
    setBusy(true);
    setProblem(undefined);
    try {
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
  const spec = isCurrent ? checked.spec : undefined;
  return (
    <section aria-label="Edit and retry">
      <h2>Edit and retry</h2>
      <div className="bar">
        <button
          type="button"
          className="primary"
          disabled={busy || !spec}
          onClick={() => spec && void run(spec)}
        >
          Run the changed task
        </button>
        <button type="button" disabled={busy} onClick={discard}>
          Discard
        </button>
        <CheckState text={text} checked={checked} editor={editor} />
      </div>
      <Problem error={problem ?? (isCurrent ? checked.error : undefined)} />
      <div className="short">
        <CheckedYaml
          editor={editor}
          text={text}
          checked={checked}
          onChange={(text) => {
            // Another text is another task.
            key.current = newKey();
            setProblem(undefined);
            setText(text);
          }}
        />
      </div>
    </section>
  );
}
