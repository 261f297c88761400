import { useQuery } from "@tanstack/react-query";
import { stream } from "../../api/client";
import { query } from "../../api/format";
import type { Event, WatchTaskResponse } from "../../api/types";
import { Lines, MAX_CHARACTERS, MAX_LINES } from "./lines";

/** Entries of a log that is read whole. */
const WHOLE = 300;
/** Last entries by which the length of the others is estimated, and characters after which fewer are enough. */
const LAST = 200;
const ENOUGH = 4 << 20;

/** Lengths of some entries of a log. */
export interface Sample {
  entries: number;
  lines: number;
  characters: number;
}

/** Returns the position after which about as much of a log follows as a page keeps. */
export function startOf(last: number, { entries, lines, characters }: Sample): number {
  if (entries === 0) {
    return 0;
  }
  const kept = Math.min((MAX_LINES * entries) / lines, (MAX_CHARACTERS * entries) / characters);
  return Number.isFinite(kept) ? Math.max(0, last - Math.ceil(kept)) : 0;
}

/** Reads the last entries of a log. */
async function sample(name: string, last: number, signal: AbortSignal): Promise<Sample> {
  const enough = new AbortController();
  const after = last - LAST;
  const lines = new Lines(after);
  let [entries, characters] = [0, 0];
  const add = (event: Event) => {
    if (enough.signal.aborted) {
      return;
    }
    lines.add([event]);
    entries += 1;
    characters = lines.all.reduce((sum, line) => sum + line.text.length, 0);
    if (Number(event.logSeq ?? 0) >= last || characters > ENOUGH) {
      enough.abort();
    }
  };
  try {
    const path = `${name}:watch${query({ afterLogSeq: after })}`;
    await stream<WatchTaskResponse>(path, AbortSignal.any([signal, enough.signal]), ({ events = [] }) =>
      events.forEach(add),
    );
  } catch (error) {
    if (!enough.signal.aborted) {
      throw error;
    }
  }
  return { entries, lines: lines.all.length, characters };
}

/**
 * Returns the position after which a page reads a log with this last entry: of a long one it reads only what it would keep.
 * `undefined` until that is known.
 */
export function useLogStart(name: string, last: number | undefined): number | undefined {
  const isLong = last !== undefined && last > WHOLE;
  const { data, error } = useQuery({
    queryKey: ["start of a log", name],
    queryFn: async ({ signal }) => startOf(last ?? 0, await sample(name, last ?? 0, signal)),
    enabled: isLong,
    staleTime: Number.POSITIVE_INFINITY,
    gcTime: 0,
  });
  // Who does not learn it reads the whole log.
  return last === undefined ? undefined : isLong && !error ? data : 0;
}
