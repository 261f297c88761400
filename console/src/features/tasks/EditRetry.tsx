import { useNavigate } from "@tanstack/react-router";
import { useState } from "react";
import { call, post } from "../../api/client";
import { placeOf, query } from "../../api/format";
import type { Task, TaskSpec } from "../../api/types";
import { keepDraft, keptDraft } from "../../drafts";
import { CheckedBar, CheckedYaml } from "../workflows/CheckedYaml";
import { readAs, write } from "../workflows/manifest";
import { useDraft } from "../workflows/useDraft";
import { editable, replayOf } from "./replay";
import { useReplace } from "./useReplace";

/**
 * The specification of a task that has failed, to be changed and run again. It begins with the draft that this tab has of it. With
 * `onDiscard` it is open from the start, and closed by what shows it.
 */
export function EditRetry({ task, onDiscard }: { task: Task; onDiscard?: () => void }) {
  const [begin, setBegin] = useState(
    () => keptDraft(task.name) ?? (onDiscard ? write(editable(task)) : undefined),
  );
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
  const keep = (text: string | undefined) =>
    keepDraft(task.name, text === write(editable(task)) ? undefined : text);
  const discard = () => {
    keep(undefined);
    setBegin(undefined);
    onDiscard?.();
  };
  return <Specification task={task} begin={begin} keep={keep} discard={discard} />;
}

/** What is typed, checked by the server as the task that it would become. */
function Specification({
  task,
  begin,
  keep,
  discard,
}: {
  task: Task;
  begin: string;
  keep: (text: string | undefined) => boolean;
  discard: () => void;
}) {
  const navigate = useNavigate();
  const { replace } = useReplace(task);
  const { namespace } = placeOf(task.name);
  const draft = useDraft<TaskSpec>(begin, task.name ?? "", {
    kind: "Task",
    read: (text) => readAs<TaskSpec>(text, "Task", "prompt"),
    keep,
    ask: (spec, signal) => {
      const path = `namespaces/${namespace}/tasks${query({ validateOnly: "true" })}`;
      return call("POST", path, replayOf(task, spec), signal);
    },
    run: async (spec, key) => {
      const headers = { "Idempotency-Key": key };
      const made = await replace(key, () =>
        post<Task>(`namespaces/${namespace}/tasks`, replayOf(task, spec), headers),
      );
      keep(undefined);
      await navigate({ to: "/tasks/$namespace/$id", params: placeOf(made.name) });
    },
  });
  return (
    <section aria-label="Edit and retry">
      <h2>Edit and retry</h2>
      <CheckedBar draft={draft} label="Run the changed task">
        <button type="button" disabled={draft.isRunning} onClick={discard}>
          Discard
        </button>
      </CheckedBar>
      <div className="short">
        <CheckedYaml draft={draft} />
      </div>
    </section>
  );
}
