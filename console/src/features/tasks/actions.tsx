import type { ReactNode } from "react";
import { get, patch, post } from "../../api/client";
import { changeAsSeen, ifMatch } from "../../api/conflict";
import type { Task } from "../../api/types";
import { isEnded } from "./ended";
import { createAndSettle } from "./settle";
import { titleOf } from "./title";

/** Priority of tasks that have none of their own. */
export const NORMAL = 5;

/** What an action on one of several selected tasks gets. */
export interface Call {
  /** The task as it was when the question was asked, which shows its fields. */
  asked: Task;
  /** The task as it was when it was selected: what has become of it since then, the person may not have seen. */
  selected: Task;
  /** Fields that were filled in. */
  fields: FormData;
  /** Key by which the server recognizes a repeated call. */
  key: string;
}

export interface Action {
  name: string;
  fits: (task: Task) => boolean;
  act: (call: Call) => Promise<unknown>;
  fields?: ReactNode;
}

/** The actions on selected tasks, with the tasks that each applies to. */
export const ACTIONS: Action[] = [
  {
    name: "Cancel",
    fits: (task) => !isEnded(task),
    act: ({ asked: { name } }) => post(`${name}:cancel`, { reason: "by a person" }),
  },
  {
    name: "Suspend",
    fits: (task) => !isEnded(task) && task.desiredState !== "DESIRED_STATE_SUSPENDED",
    act: ({ asked }) => desire(asked, "DESIRED_STATE_SUSPENDED"),
  },
  {
    name: "Resume",
    fits: (task) => !isEnded(task) && task.desiredState === "DESIRED_STATE_SUSPENDED",
    act: ({ asked }) => desire(asked, "DESIRED_STATE_RUN"),
  },
  {
    name: "Set priority",
    fits: (task) => !isEnded(task),
    act: ({ asked, fields }) => setPriority(asked, Number(fields.get("priority"))),
    fields: (
      <label>
        Priority, from 0 to 10
        <input name="priority" type="number" min={0} max={10} defaultValue={NORMAL} required />
      </label>
    ),
  },
  {
    name: "Retry",
    fits: isEnded,
    act: ({ selected, key }) =>
      createAndSettle(selected, key, () => post<Task>(`${selected.name}:retry`, { idempotencyKey: key })),
  },
];

function desire({ name }: Task, state: string): Promise<unknown> {
  return patch(`${name}?updateMask=desiredState`, { name, desiredState: state });
}

/** Sets a priority, unless someone else has set another one since the person has seen the task. */
function setPriority(seen: Task, priority: number): Promise<unknown> {
  const { name = "" } = seen;
  return changeAsSeen<Task>({
    what: titleOf(seen),
    seen,
    read: () => get<Task>(name),
    values: (task) => ({ "the priority": `${task?.priority ?? NORMAL}` }),
    mine: { "the priority": `${priority}` },
    send: (etag) => patch(`${name}?updateMask=priority`, { name, priority }, ifMatch(etag)),
  });
}
