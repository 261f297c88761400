import { ApiError, Code, get, patch } from "../../api/client";
import { changeOfLatest } from "../../api/conflict";
import { query } from "../../api/format";
import { visibleLine } from "../../api/plain";
import type { Task } from "../../api/types";
import { isDeadLetter, replayedBy, settledBy } from "./replay";

/** In place of a task that takes the place of another one: none does, as the documentation names it. */
export const DISMISSED: Task = { uid: "never" };

/** Copies by the keys of their creation, until it is certain which label their originals have: that answer may be lost. */
const unconfirmed = new Map<string, Task>();

/**
 * Creates a task that takes the place of an ended one, which is no dead letter any more. Creates none if that one was settled since a
 * person has seen it: what was settled before is run again on purpose. `key` is the idempotency key of the creation: repeated with it,
 * the call continues with the task that it has created.
 */
export async function createAndSettle(seen: Task, key: string, create: () => Promise<Task>): Promise<Task> {
  let known = seen;
  let made = unconfirmed.get(key);
  if (!made) {
    const now = await get<Task>(seen.name ?? "");
    if (isSettled(now) && settledBy(now.labels) !== settledBy(seen.labels)) {
      throw new SettledError(now, "no second task was created");
    }
    made = await create();
    if (!isDeadLetter(now)) {
      return made;
    }
    unconfirmed.set(key, made);
    known = now;
  }
  // Only a repetition may know it as settled: the page has been read again.
  if (!isSettled(known)) {
    await settle(known, made).catch((error: unknown) => {
      if (error instanceof ApiError && error.code === Code.NOT_FOUND) {
        // It was deleted meanwhile: nothing is left to settle.
        return;
      }
      if (!(error instanceof SettledError)) {
        throw unrecorded(error, made);
      }
      unconfirmed.delete(key);
      throw error;
    });
  }
  unconfirmed.delete(key);
  return made;
}

/** Records which task has taken the place of a dead letter. What another person has recorded is kept, and reported. */
export async function settle(task: Task, made: Task): Promise<void> {
  await changeOfLatest<Task>(
    task,
    () => get<Task>(task.name ?? ""),
    async (latest, headers) => {
      const { name, labels } = latest;
      const by = settledBy(labels);
      if (by === undefined) {
        const labelled = { name, labels: replayedBy(labels, made) };
        await patch(`${name}${query({ updateMask: "labels" })}`, labelled, headers);
      } else if (by !== made.uid) {
        const isDone = made !== DISMISSED;
        const result = isDone ? `${made.uid} was created as well` : "that is kept";
        throw new SettledError(latest, result, isDone);
      }
    },
  );
}

/** Returns the error of a call that has created a copy: whatever keeps its label from being set, a repetition continues with it. */
function unrecorded(why: unknown, { uid }: Task): unknown {
  return why instanceof ApiError
    ? new ApiError(
        Code.UNAVAILABLE,
        `${uid} was created, but not recorded: ${why.message}`,
        why.reason,
        why.hint,
      )
    : why;
}

/** Returns the tasks whose action has failed and may be repeated: those that another person has settled would run a second time. */
export function repeatable(failed: readonly { one: Task; why: unknown }[]): Task[] {
  return failed.filter(({ why }) => !(why instanceof SettledError)).map(({ one }) => one);
}

/** Whether a task was run again or dismissed. */
export function isSettled({ labels }: Task): boolean {
  return settledBy(labels) !== undefined;
}

/** Returns what has become of a settled task, in words. */
export function fateOf({ labels }: Task): string {
  const by = settledBy(labels);
  return by === DISMISSED.uid ? "dismissed" : `run again as ${visibleLine(by)}`;
}

/**
 * Refusal of what was settled since a person has seen it. `task` is what a person who reads it knows then. It is done if a copy was
 * created as well.
 */
export class SettledError extends ApiError {
  constructor(
    readonly task: Task,
    result: string,
    override readonly isDone = false,
  ) {
    super(Code.FAILED_PRECONDITION, `the task was ${fateOf(task)} meanwhile: ${result}`);
  }
}
