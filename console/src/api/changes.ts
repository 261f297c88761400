import type { Task } from "./types";

/** Changes that are kept of a read at most; with more, the oldest are dropped. */
const MAX_KEPT = 10_000;

/** Changes that arrive while a list is read. What the server has read may be older than these. */
export class Changes<T> {
  #kept: T[] = [];
  /** Number of changes that were dropped or forgotten, so that positions stay the same. */
  #dropped = 0;
  #reads = 0;

  add(change: T): void {
    if (this.#reads === 0) {
      return;
    }
    this.#kept.push(change);
    if (this.#kept.length > MAX_KEPT) {
      this.#kept.shift();
      this.#dropped += 1;
    }
  }

  /** Reads something, and applies to it what has changed meanwhile, in its order. */
  async during<R>(read: () => Promise<R>, apply: (found: R, change: T) => R): Promise<R> {
    const from = this.#dropped + this.#kept.length;
    this.#reads += 1;
    try {
      const found = await read();
      return this.#kept.slice(Math.max(0, from - this.#dropped)).reduce(apply, found);
    } finally {
      this.#reads -= 1;
      if (this.#reads === 0) {
        this.#dropped += this.#kept.length;
        this.#kept = [];
      }
    }
  }
}

/** Returns the task with the longer log, of two records of one task. */
export function newer(one: Task, other: Task): Task {
  const length = (task: Task) => Number(task.status?.logSeq ?? 0);
  return length(other) >= length(one) ? other : one;
}

/** Returns a list in which one task is as new as known. It stays the same list if that changes nothing. */
export function withNewer(tasks: Task[], task: Task | undefined): Task[] {
  const index = task ? tasks.findIndex((one) => one.name === task.name) : -1;
  const known = tasks[index];
  return known && task && newer(known, task) !== known ? tasks.with(index, task) : tasks;
}

/** Returns a page of tasks after a change of one of them. */
export function withChange<P extends { tasks?: Task[] }>(page: P, { task }: { task?: Task }): P {
  const tasks = withNewer(page.tasks ?? [], task);
  return tasks === page.tasks ? page : { ...page, tasks };
}
