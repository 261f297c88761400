import { useEffect, useRef, useState } from "react";
import { get } from "../../api/client";
import { query } from "../../api/format";
import type { LogHit, SearchTaskLogResponse } from "../../api/types";
import { Problem } from "../../components/Problem";
import type { Place } from "./Log";

/** Hits that are kept; the search then waits for a click. */
const MAX_HITS = 1000;

interface Props {
  /** Of the task. */
  name: string;
  text: string;
  /** Position of the last entry of the log. */
  last: number;
  go: (place: Place) => void;
}

/** Finds a text in all of a log, also in what the page does not have: the server searches, a part in each call. */
export function LogSearch({ name, text, last, go }: Props) {
  const [hits, setHits] = useState<LogHit[]>([]);
  const [at, setAt] = useState(-1);
  const [next, setNext] = useState(0);
  const [isAtEnd, setIsAtEnd] = useState(false);
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<unknown>();
  // A running task may write more after the end.
  const isOver = isAtEnd && next >= last;
  const abort = useRef<AbortController>(undefined);
  useEffect(() => () => abort.current?.abort(), []);
  const to = (index: number, of = hits) => {
    const hit = of[index];
    if (hit) {
      setAt(index);
      go({ seq: Number(hit.logSeq), text });
    }
  };
  const search = async () => {
    abort.current = new AbortController();
    const { signal } = abort.current;
    setBusy(true);
    setProblem(undefined);
    let [found, position]: [LogHit[], string] = [hits, String(next)];
    const most = hits.length + MAX_HITS;
    try {
      do {
        const answer = await get<SearchTaskLogResponse>(
          `${name}:searchLog${query({ text, afterLogSeq: position })}`,
          signal,
        );
        const isFirst = found.length === 0;
        found = [...found, ...(answer.hits ?? [])];
        position = answer.nextLogSeq ?? "0";
        setHits(found);
        setNext(Number(position === "0" ? (answer.logSeq ?? "0") : position));
        setIsAtEnd(position === "0");
        if (isFirst) {
          to(0, found);
        }
      } while (position !== "0" && found.length < most);
    } catch (error) {
      if (signal.aborted) {
        return;
      }
      setProblem(error);
    }
    setBusy(false);
  };
  return (
    <>
      {!isOver && (
        <button type="button" disabled={busy || text === ""} onClick={() => void search()}>
          {next > 0 ? "Search on" : "Search all of it"}
        </button>
      )}
      {hits.length > 0 && (
        <>
          <button type="button" disabled={at <= 0} onClick={() => to(at - 1)}>
            Previous hit
          </button>
          <button type="button" disabled={at >= hits.length - 1} onClick={() => to(at + 1)}>
            Next hit
          </button>
        </>
      )}
      <span className="quiet" role="status">
        {hits.length > 0 && `Hit ${at + 1} of ${hits.length}${isOver ? "" : "+"}. `}
        {busy && next > 0 && `Searched up to entry ${next} of ${last}.`}
        {isOver && hits.length === 0 && "Not in the log."}
      </span>
      <Problem error={problem} />
    </>
  );
}
