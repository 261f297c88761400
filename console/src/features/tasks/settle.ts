import { ApiError, Code, get, patch } from "../../api/client";
import { changeOfLatest } from "../../api/conflict";
import { query } from "../../api/format";
import { visibleLine } from "../../api/plain";
import type { Task } from "../../api/types";
import { isDeadLetter, replayedBy, settledBy } from "./replay";

/** In place of a task that takes the place of another one: none does, as the documentation names it. */
export const NONE: Task = { uid: "never" };

/** Copies by the keys of their creation, until it is known that their originals have the label: that answer may be lost. */
const unconfirmed = new Map<string, Task>();

/**
 * Creates a task that takes the place of another one, which is no dead letter any more. Creates none if another person has settled
 * that one since it was read. `key` is the idempotency key of the creation: repeated with it, the call goes on with the task that it
 * has created.
 */
export async function replace(task: Task, key: string, create: () => Promise<Task>): Promise<Task> {
  let made = unconfirmed.get(key);
  if (!made) {
    if (!isDeadLetter(task)) {
      return create();
    }
    const by = settledBy((await get<Task>(task.name ?? "")).labels);
    if (by !== undefined) {
      throw settledMeanwhile(by, "no second task was created");
    }
    made = await create();
    unconfirmed.set(key, made);
  }
  await settle(task, made);
  unconfirmed.delete(key);
  return made;
}

/** Records which task has taken the place of a dead letter. What another person has recorded is kept, and reported. */
export async function settle(task: Task, made: Task): Promise<void> {
  await changeOfLatest<Task>(
    task,
    () => get<Task>(task.name ?? ""),
    async ({ name, labels }, headers) => {
      const by = settledBy(labels);
      if (by === undefined) {
        const labelled = { name, labels: replayedBy(labels, made) };
        await patch(`${name}${query({ updateMask: "labels" })}`, labelled, headers);
      } else if (by !== made.uid) {
        throw settledMeanwhile(by, made === NONE ? "that is kept" : `${made.uid} was created as well`);
      }
    },
  );
}

/** Returns the tasks whose action has failed and may be repeated: those that another person has settled would run a second time. */
export function repeatable(failed: readonly { one: Task; why: unknown }[]): Task[] {
  return failed.filter(({ why }) => !(why instanceof SettledError)).map(({ one }) => one);
}

/** Refusal of what another person has settled. */
class SettledError extends ApiError {}

function settledMeanwhile(by: string, result: string): SettledError {
  const fate = by === NONE.uid ? "dismissed" : `run again as ${visibleLine(by)}`;
  return new SettledError(Code.FAILED_PRECONDITION, `the task was ${fate} meanwhile: ${result}`);
}
