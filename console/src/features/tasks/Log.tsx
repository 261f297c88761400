import { useVirtualizer } from "@tanstack/react-virtual";
import Anser from "anser";
import { memo, useCallback, useEffect, useMemo, useRef, useState } from "react";
import { counted, id } from "../../api/format";
import { clock, exact, zone } from "../../api/time";
import { type Link, troubleOf } from "../../api/useStream";
import { Problem } from "../../components/Problem";
import { DownloadLink } from "./Download";
import { LogSearch } from "./LogSearch";
import { hasPlace, type Line, lineOf } from "./lines";
import { useLogPart } from "./useLogPart";

/** Parts of a line that have a colour of their own; the rest has none. */
const MAX_PARTS = 200;

interface Props {
  /** Of the task. */
  name: string;
  lines: readonly Line[];
  version: number;
  link: Link;
  /** Position of the last entry. */
  last: number;
  /** Position of the entry that the address names; 0 for none. */
  linked: number;
  onLink: (seq: number) => void;
}

/** A place in the log that the reader has opened: of an entry, and of the line of it with a text. */
export interface Place {
  seq: number;
  text: string;
}

/** A log, again after each change: only the visible lines are in the page. It follows new lines until the reader scrolls up. */
export function Log({ name, lines: live, version, link, last, linked, onLink }: Props) {
  const [follows, setFollows] = useState(linked === 0);
  const [place, setPlace] = useState<Place | undefined>(linked > 0 ? { seq: linked, text: "" } : undefined);
  // What the page has left out, or does not have yet, is read by itself.
  const seen = live.at(-1)?.seq ?? 0;
  const isHere = !place || (hasPlace(live, place.seq, place.text) && seen >= Math.min(place.seq, last));
  const isKnown = link.state !== "connecting" && live.length > 0;
  const part = useLogPart(name, place && isKnown && !isHere ? place.seq : 0);
  const lines = part.lines ?? live;
  const [wanted, setWanted] = useState("");
  // biome-ignore lint/correctness/useExhaustiveDependencies: the array is the same after each change
  const shown = useMemo(() => {
    const needle = wanted.toLowerCase();
    return needle && !place ? lines.filter((line) => line.text.toLowerCase().includes(needle)) : lines;
  }, [lines, version, wanted, place]);
  // Until the lines are there, nothing is scrolled to.
  const hit = place && (part.lines || isHere) ? lineOf(lines, place.seq, place.text) : -1;
  const go = useCallback(
    (to: Place) => {
      setFollows(false);
      setPlace(to);
      // The address is a link to the line.
      onLink(to.seq);
    },
    [onLink],
  );
  const pause = useCallback(() => setFollows(false), []);
  return (
    <>
      <div className="bar">
        <label>
          Find in the log
          <input
            type="search"
            value={wanted}
            maxLength={256}
            onChange={(event) => {
              setWanted(event.target.value);
              setPlace(undefined);
            }}
          />
        </label>
        <LogSearch key={wanted} name={name} text={wanted} last={last} go={go} />
        <button
          type="button"
          aria-pressed={follows}
          onClick={() => {
            setPlace(undefined);
            setFollows(!follows);
          }}
        >
          {follows ? "Following" : "Paused: follow"}
        </button>
        <DownloadLink path={`${name}:downloadLog`} file={`${id(name)}.log`}>
          Download
        </DownloadLink>
        <span className="quiet">Times are of {zone()}.</span>
        <span className="quiet" role="status">
          {counted(shown.length, "line")}
          {part.lines && ` around entry ${place?.seq} of ${last}`}. {troubleOf(link)}
        </span>
      </div>
      {link.state === "ended" && <Problem error={link.error} />}
      <Problem error={part.problem} />
      <Rows
        // Another list: its sizes and its position are its own.
        key={part.lines ? `part ${place?.seq}` : "live"}
        lines={shown}
        hit={hit}
        follows={follows}
        pause={pause}
        go={go}
      />
    </>
  );
}

/** The visible lines of a list. */
function Rows({
  lines,
  hit,
  follows,
  pause,
  go,
}: {
  lines: readonly Line[];
  /** Index of the line that the reader has opened; -1 for none. */
  hit: number;
  follows: boolean;
  pause: () => void;
  go: (place: Place) => void;
}) {
  const box = useRef<HTMLDivElement>(null);
  const rows = useVirtualizer({
    count: lines.length,
    getScrollElement: () => box.current,
    estimateSize: () => 21,
    overscan: 20,
  });
  // Lines that are measured move the others, which is no wish of the reader.
  const byReader = useRef(false);
  const mark = () => {
    byReader.current = true;
  };
  useEffect(() => {
    if (hit >= 0) {
      byReader.current = false;
      rows.scrollToIndex(hit, { align: "center" });
    }
  }, [hit, rows]);
  useEffect(() => {
    byReader.current = false;
    if (follows && lines.length > 0) {
      rows.scrollToIndex(lines.length - 1, { align: "end" });
    }
  }, [follows, lines.length, rows]);
  return (
    <section
      className="log"
      ref={box}
      // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reached by keyboard
      tabIndex={0}
      aria-label="Log"
      onScroll={(event) => {
        const { scrollTop, scrollHeight, clientHeight } = event.currentTarget;
        const atEnd = scrollHeight - scrollTop - clientHeight < 40;
        if (!atEnd && byReader.current) {
          pause();
        }
      }}
      onWheel={mark}
      onTouchMove={mark}
      onKeyDown={mark}
      onPointerDown={mark}
    >
      <div style={{ height: rows.getTotalSize(), position: "relative" }}>
        {rows.getVirtualItems().map((item) => {
          const line = lines[item.index];
          return (
            line && (
              <div
                key={item.key}
                data-index={item.index}
                ref={rows.measureElement}
                className={`line ${line.kind}${item.index === hit ? " hit" : ""}`}
                aria-current={item.index === hit ? "location" : undefined}
                style={{ transform: `translateY(${item.start}px)` }}
              >
                <LineTime line={line} go={go} />
                <span className={line.depth ? `nested depth-${line.depth}` : undefined}>
                  {line.depth && <span className="hidden">Subagent: </span>}
                  {line.kind === "stdout" || line.kind === "stderr" ? <Ansi text={line.text} /> : line.text}
                </span>
              </div>
            )
          );
        })}
      </div>
    </section>
  );
}

/** The time of a line, which is a link to it. */
function LineTime({ line: { seq, time }, go }: { line: Line; go: (place: Place) => void }) {
  const at = new Date(time);
  const text = time && clock(at);
  if (!text || seq === 0) {
    return (
      <span className="at" title={text && exact(at)}>
        {text}
      </span>
    );
  }
  return (
    <a
      className="at"
      href={`?line=${seq}`}
      title={`${exact(at)}: link to entry ${seq}`}
      tabIndex={-1}
      onClick={(event) => {
        event.preventDefault();
        go({ seq, text: "" });
      }}
    >
      {text}
    </a>
  );
}

/** Text with the colours of a terminal, as elements: nothing of it is taken for HTML. */
const Ansi = memo(function Ansi({ text }: { text: string }) {
  const all = Anser.ansiToJson(text, { json: true, remove_empty: true });
  const rest = all.slice(MAX_PARTS).map((part) => part.content);
  return (
    <>
      {all.slice(0, MAX_PARTS).map((part, index) => (
        <span
          // biome-ignore lint/suspicious/noArrayIndexKey: the parts of a line never move
          key={index}
          style={{
            ...(part.fg && { color: `rgb(${part.fg})` }),
            ...(part.bg && { backgroundColor: `rgb(${part.bg})` }),
            ...(part.decorations.includes("bold") && { fontWeight: "bold" }),
          }}
        >
          {part.content}
        </span>
      ))}
      {rest.join("")}
    </>
  );
});
