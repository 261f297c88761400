import { useNavigate } from "@tanstack/react-router";
import { useRef, useState } from "react";
import { newKey, post } from "../../api/client";
import { counted, placeOf } from "../../api/format";
import type { Task } from "../../api/types";
import { Problem } from "../../components/Problem";
import { continuationOf } from "./continuation";
import { type Comment, messageOf } from "./patch";
import { useReplace } from "./useReplace";

/** The next message of the conversation of a task that has ended, with the comments on its changes: a new task continues it. */
export function Continue({ task, comments }: { task: Task; comments: Comment[] }) {
  const navigate = useNavigate();
  const { see, replace } = useReplace(task);
  const [text, setText] = useState("");
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<unknown>();
  // The same until the task is created: a call that is repeated creates no second one.
  const key = useRef({ message: "", value: "" });
  const message = messageOf(text, comments);
  const secret = task.spec?.secretNames?.[0];
  const send = async () => {
    setBusy(true);
    setProblem(undefined);
    if (key.current.message !== message) {
      key.current = { message, value: newKey() };
    }
    try {
      const { namespace } = placeOf(task.name);
      const { value } = key.current;
      const headers = { "Idempotency-Key": value };
      const made = await replace(value, () =>
        post<Task>(`namespaces/${namespace}/tasks`, continuationOf(task, message), headers),
      );
      await navigate({ to: "/tasks/$namespace/$id", params: placeOf(made.name) });
    } catch (error) {
      setProblem(error);
    }
    setBusy(false);
  };
  if (secret) {
    return (
      <p className="quiet">
        The task has the secret {secret}, which no page can copy: continue it with{" "}
        <code>rota continue --secret-env</code>.
      </p>
    );
  }
  return (
    <section aria-label="Continue">
      <h2>Continue</h2>
      <form
        className="answer"
        onSubmit={(event) => {
          event.preventDefault();
          void send();
        }}
      >
        <label>
          Next message
          <textarea
            value={text}
            onChange={(event) => {
              // The page may have opened with an older state of the task.
              if (message === "") {
                see();
              }
              setText(event.target.value);
            }}
            maxLength={64 * 1024}
            disabled={busy}
          />
        </label>
        <div>
          <button type="submit" className="primary" disabled={busy || message === ""}>
            {comments.length === 0 ? "Continue" : `Continue with ${counted(comments.length, "comment")}`}
          </button>
        </div>
      </form>
      <Problem error={problem} />
    </section>
  );
}
