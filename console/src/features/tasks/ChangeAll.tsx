import { useEffect, useRef, useState } from "react";
import { ApiError, newKey, post } from "../../api/client";
import { counted } from "../../api/format";
import type { ChangeTasksRequest, ChangeTasksResponse } from "../../api/types";
import { Acting } from "../../components/Acting";
import { Dialog } from "../../components/Dialog";
import { Problem } from "../../components/Problem";
import { BEGINNING, change, type Progress } from "./change";
import { filterOf, type TaskSearch } from "./filters";

type Action = NonNullable<ChangeTasksRequest["action"]>;

const ACTIONS: { action: Action; name: string }[] = [
  { action: "TASK_ACTION_CANCEL", name: "Cancel" },
  { action: "TASK_ACTION_SUSPEND", name: "Suspend" },
  { action: "TASK_ACTION_RESUME", name: "Resume" },
  { action: "TASK_ACTION_SET_PRIORITY", name: "Set priority of" },
  { action: "TASK_ACTION_RETRY", name: "Retry" },
];

/** What was counted, and what is changed of it. */
interface Change {
  name: string;
  request: ChangeTasksRequest;
  counted: Progress;
  changed?: Progress;
}

/** One action on all tasks that match the filter, which the server counts first. */
export function ChangeAll({
  namespace,
  search,
  normal,
}: {
  namespace: string;
  search: TaskSearch;
  normal: number;
}) {
  const [open, setOpen] = useState(false);
  const [action, setAction] = useState<Action>("TASK_ACTION_CANCEL");
  const [now, setNow] = useState<Change>();
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<unknown>();
  const isLeft = useRef(false);
  useEffect(() => {
    isLeft.current = false;
    return () => {
      // Who leaves the page, or filters for something else, makes no further calls.
      isLeft.current = true;
    };
  }, []);
  const call = (request: ChangeTasksRequest) => {
    if (isLeft.current) {
      throw new Error("the page was left");
    }
    return post<ChangeTasksResponse>(`namespaces/${namespace}/tasks:change`, request);
  };
  const run = async (work: () => Promise<unknown>) => {
    setBusy(true);
    setProblem(undefined);
    try {
      await work();
    } catch (error) {
      setProblem(error);
    }
    setBusy(false);
  };
  const count = (fields: FormData) =>
    run(async () => {
      const request: ChangeTasksRequest = {
        filter: filterOf(search),
        action,
        reason: "by a person",
        ...(action === "TASK_ACTION_SET_PRIORITY" && { priority: Number(fields.get("priority")) }),
      };
      const name = ACTIONS.find((one) => one.action === action)?.name ?? "";
      const counting = { ...request, validateOnly: true };
      try {
        await change(call, counting, BEGINNING, (counted) => setNow({ name, request, counted }));
      } catch (error) {
        // A part of a count is of no use.
        setNow(undefined);
        throw error;
      }
    });
  const apply = (of: Change) =>
    run(async () => {
      const request = {
        ...of.request,
        expectedCount: String(of.counted.done),
        pageToken: of.counted.start,
        // The same if it is continued.
        idempotencyKey: of.request.idempotencyKey ?? newKey(),
      };
      setNow({ ...of, request });
      const from = of.changed ?? BEGINNING;
      await change(call, request, from, (changed) => setNow({ ...of, request, changed }));
    });
  const close = () => {
    setOpen(false);
    setProblem(undefined);
    if (!busy) {
      setNow(undefined);
    }
  };
  // The counts are out of date: what matches now is counted again.
  const isRefused = problem instanceof ApiError && problem.reason === "MORE_TASKS_MATCH";
  const total = now?.counted.done ?? 0;
  const tasks = counted(total, "task");
  const isCounted = now?.counted.isOver && !now.changed;
  return (
    <Acting>
      <button type="button" onClick={() => setOpen(true)}>
        All that match…
      </button>
      <Dialog open={open} onClose={close} title="All tasks that match">
        {!now && (
          <form
            onSubmit={(event) => {
              event.preventDefault();
              void count(new FormData(event.currentTarget));
            }}
          >
            <div className="bar">
              <label>
                Action
                <select value={action} onChange={(event) => setAction(event.target.value as Action)}>
                  {ACTIONS.map((one) => (
                    <option key={one.action} value={one.action}>
                      {one.name.replace(/ of$/, "")}
                    </option>
                  ))}
                </select>
              </label>
              {action === "TASK_ACTION_SET_PRIORITY" && (
                <label>
                  Priority, from 0 to 10
                  <input name="priority" type="number" min={0} max={10} defaultValue={normal} required />
                </label>
              )}
              <button type="submit" className="primary" disabled={busy}>
                Count them
              </button>
            </div>
          </form>
        )}
        <div role="status">
          {now && !now.counted.isOver && <p>{tasks} counted so far.</p>}
          {isCounted && total === 0 && <p>No task matches to which this applies.</p>}
          {isCounted && total > 0 && (
            <p>
              {now.name} {tasks}?
            </p>
          )}
          {now?.changed && (
            <p>
              {now.changed.done} of {tasks} changed{now.changed.isOver ? "." : " so far."}
            </p>
          )}
          {now?.changed && now.changed.failed > 0 && (
            <p className="problem">
              {now.changed.failed} failed: {now.changed.errors.join("; ")}
            </p>
          )}
        </div>
        <Problem error={problem} />
        {now?.counted.isOver && total > 0 && !now.changed?.isOver && !isRefused && (
          <button type="button" className="primary" disabled={busy} onClick={() => void apply(now)}>
            {problem ? "Continue" : `${now.name} ${tasks}`}
          </button>
        )}
      </Dialog>
    </Acting>
  );
}
