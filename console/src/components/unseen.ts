import { useCallback, useReducer, useState } from "react";
import { createdAt } from "../api/format";

/** Names that are kept at most. */
const MAX_NAMES = 1000;

/** Names of the records that were created since a list was read. Changed in place: a stream may have thousands. */
export class Unseen {
  readonly #names = new Set<string>();
  #isPart = false;

  /** Adds or removes a name. Returns whether that has changed anything. */
  set(name: string, isUnseen: boolean): boolean {
    if (!isUnseen) {
      return this.#names.delete(name);
    }
    if (this.#names.has(name) || this.#names.size === MAX_NAMES) {
      return false;
    }
    this.#names.add(name);
    return true;
  }

  /** Replaces all names: by those of a list, which is a part of what has come into being or all of it. */
  reset(listed: readonly { name?: string }[] = [], isPart = false): void {
    this.#names.clear();
    for (const { name = "" } of listed) {
      this.set(name, true);
    }
    this.#isPart = isPart;
  }

  /** Returns the number of those that a list lacks, as text, with a plus if there may be more; `undefined` for none. */
  besides(listed: readonly { name?: string }[]): string | undefined {
    if (this.#names.size === 0) {
      return undefined;
    }
    const known = new Set(listed.map(({ name }) => name));
    const count = [...this.#names].filter((name) => !known.has(name)).length;
    return count === 0 ? undefined : `${count}${this.#isPart || this.#names.size === MAX_NAMES ? "+" : ""}`;
  }
}

/** Counts the records that a list does not show before a click. */
export function useUnseen(listed: readonly { name?: string }[]) {
  const [unseen] = useState(() => new Unseen());
  const [, draw] = useReducer((drawn: number) => drawn + 1, 0);
  const set = useCallback(
    (name: string | undefined, isUnseen: boolean) => {
      if (name !== undefined && unseen.set(name, isUnseen)) {
        draw();
      }
    },
    [unseen],
  );
  const reset = useCallback(
    (...args: Parameters<Unseen["reset"]>) => {
      unseen.reset(...args);
      draw();
    },
    [unseen],
  );
  return { count: unseen.besides(listed), set, reset };
}

/**
 * Whether a record has its place among the rows of a list, newest first: one older than the last of them may be on a further page. A list
 * that has been searched in part only may have no rows, and a further page.
 */
export function isWithin(
  one: { createTime?: string },
  listed: readonly { createTime?: string }[],
  hasMore: boolean,
): boolean {
  return !hasMore || listed.length === 0 || createdAt(one) >= createdAt(listed.at(-1));
}

/** Whether something is as new as the newest of a list: an older one may be on a page that was not read. */
export function isNewest(one: { createTime?: string }, listed: readonly { createTime?: string }[]): boolean {
  return listed.length === 0 || createdAt(one) >= createdAt(listed[0]);
}
