import { ApiError } from "./client";

/** Values of a record by their names, as people read them. */
export type Values = Readonly<Record<string, string>>;

/** Times that a change is sent: each time, someone else has changed something else of the record. */
const TRIES = 5;

/** What someone else has changed since it was shown, and what would have overwritten that. Nothing was saved. */
export class Conflict extends Error {
  constructor(
    what: string,
    readonly before: Values,
    readonly theirs: Values,
    readonly mine: Values,
    /** Saves it all the same, unless it has changed once more. */
    readonly overwrite: () => Promise<unknown>,
  ) {
    const different = Object.keys(mine).filter((name) => theirs[name] !== mine[name]);
    const both = different.map((name) => `${name} is ${theirs[name]} now, and not ${mine[name]}`);
    super(`${what} was changed by someone else meanwhile: ${both.join(", ")}`);
  }
}

/** The header of a change that depends on what was read. */
export function ifMatch(etag: string | undefined): Record<string, string> {
  return etag ? { "If-Match": `"${etag}"` } : {};
}

export function isMismatch(error: unknown): boolean {
  return error instanceof ApiError && error.reason === "ETAG_MISMATCH";
}

function isSame(one: Values, other: Values): boolean {
  return Object.keys(one).every((name) => one[name] === other[name]);
}

interface Change<R> {
  /** What is changed, in words. */
  what: string;
  /** The record as it was shown to the person. */
  seen: R | undefined;
  read: () => Promise<R | undefined>;
  /** The values of a record that are changed; of all records the same names. */
  values: (record: R | undefined) => Values;
  mine: Values;
  send: (etag: string | undefined) => Promise<unknown>;
}

/** Changes values of a record, unless someone else has changed one of them since they were shown: that is a `Conflict`. */
export async function changeAsSeen<R extends { etag?: string }>(change: Change<R>): Promise<unknown> {
  const { what, seen, read, values, mine, send } = change;
  const before = values(seen);
  let known = seen;
  for (let tries = 0; tries < TRIES; tries += 1) {
    if (known?.etag) {
      try {
        return await send(known.etag);
      } catch (error) {
        if (!isMismatch(error)) {
          throw error;
        }
      }
    }
    const now = await read();
    const theirs = values(now);
    if (!isSame(theirs, before)) {
      if (isSame(theirs, mine)) {
        // As it should be: someone else was faster, or an answer was lost.
        return now;
      }
      throw new Conflict(what, before, theirs, mine, () => changeAsSeen({ ...change, seen: now }));
    }
    if (!now?.etag) {
      return await send(undefined);
    }
    known = now;
  }
  throw new Error(`${what} changes too often: try again`);
}

/** Makes a change that follows from the record, such as a further label: once more from what it is now, if it has changed. */
export async function changeOfLatest<R extends { etag?: string }>(
  seen: R,
  read: () => Promise<R>,
  send: (record: R, headers: Record<string, string>) => Promise<unknown>,
): Promise<unknown> {
  let known = seen;
  for (let tries = 1; ; tries += 1) {
    try {
      return await send(known, ifMatch(known.etag));
    } catch (error) {
      if (!isMismatch(error) || tries === TRIES) {
        throw error;
      }
      known = await read();
    }
  }
}
