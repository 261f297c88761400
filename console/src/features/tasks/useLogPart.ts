import { useEffect, useState } from "react";
import { stream } from "../../api/client";
import { query } from "../../api/format";
import type { WatchTaskResponse } from "../../api/types";
import { type Line, Lines } from "./lines";

/** Entries before and after the wanted one that are read; after it fewer, if there are so many lines. */
const BEFORE = 20;
const AFTER = 100;
const LINES = 2000;

/** Reads the part of a log around an entry; nothing for 0. */
export function useLogPart(name: string, seq: number): { lines?: readonly Line[]; problem?: unknown } {
  const [part, setPart] = useState<{ seq: number; lines?: readonly Line[]; problem?: unknown }>();
  useEffect(() => {
    if (seq === 0) {
      setPart(undefined);
      return;
    }
    const abort = new AbortController();
    const after = Math.max(0, seq - BEFORE);
    const lines = new Lines(after);
    let isOver = false;
    stream<WatchTaskResponse>(
      `${name}:watch${query({ afterLogSeq: after })}`,
      abort.signal,
      ({ events = [] }) => {
        // Messages that have arrived with the last one are still handed over: no more than wanted of them is kept.
        for (const event of isOver ? [] : events) {
          lines.add([event]);
          const at = Number(event.logSeq ?? 0);
          isOver = at >= seq + AFTER || (at >= seq && lines.all.length >= LINES);
          if (isOver) {
            abort.abort();
            break;
          }
        }
        setPart({ seq, lines: [...lines.all] });
      },
    ).catch((problem: unknown) => {
      if (!isOver && !abort.signal.aborted) {
        setPart({ seq, problem });
      }
    });
    return () => abort.abort();
  }, [name, seq]);
  return part?.seq === seq ? part : {};
}
