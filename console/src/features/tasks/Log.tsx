import { useVirtualizer } from "@tanstack/react-virtual";
import Anser from "anser";
import { memo, useEffect, useMemo, useRef, useState } from "react";
import { type Link, troubleOf } from "../../api/useStream";
import { Problem } from "../../components/Problem";
import type { Line } from "./lines";

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

/** Parts of a line that have a colour of their own; the rest has none. */
const MAX_PARTS = 200;

/** A log, again after each change: only the visible lines are in the page. It follows new lines until the reader scrolls up. */
export function Log({ lines, version, link }: { lines: readonly Line[]; version: number; link: Link }) {
  const box = useRef<HTMLDivElement>(null);
  const [follows, setFollows] = useState(true);
  const [wanted, setWanted] = useState("");
  // biome-ignore lint/correctness/useExhaustiveDependencies: the array is the same after each change
  const shown = useMemo(() => {
    const needle = wanted.toLowerCase();
    return needle ? lines.filter((line) => line.text.toLowerCase().includes(needle)) : lines;
  }, [lines, version, wanted]);
  const rows = useVirtualizer({
    count: shown.length,
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
    byReader.current = false;
    if (follows && shown.length > 0) {
      rows.scrollToIndex(shown.length - 1, { align: "end" });
    }
  }, [follows, shown.length, rows]);
  const download = () => {
    const url = URL.createObjectURL(
      new Blob([lines.map((line) => line.text).join("\n")], { type: "text/plain" }),
    );
    const anchor = document.createElement("a");
    anchor.href = url;
    anchor.download = "log.txt";
    anchor.click();
    URL.revokeObjectURL(url);
  };
  return (
    <>
      <div className="bar">
        <label>
          Find in the log
          <input type="search" value={wanted} onChange={(event) => setWanted(event.target.value)} />
        </label>
        <button type="button" aria-pressed={follows} onClick={() => setFollows(!follows)}>
          {follows ? "Following" : "Paused: follow"}
        </button>
        <button type="button" onClick={download}>
          Download
        </button>
        <span className="quiet" role="status">
          {shown.length} lines. {troubleOf(link)}
        </span>
      </div>
      {link.state === "ended" && <Problem error={link.error} />}
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
            setFollows(false);
          }
        }}
        onWheel={mark}
        onTouchMove={mark}
        onKeyDown={mark}
        onPointerDown={mark}
      >
        <div style={{ height: rows.getTotalSize(), position: "relative" }}>
          {rows.getVirtualItems().map((item) => {
            const line = shown[item.index];
            return (
              line && (
                <div
                  key={item.key}
                  data-index={item.index}
                  ref={rows.measureElement}
                  className={`line ${line.kind}`}
                  style={{ transform: `translateY(${item.start}px)` }}
                >
                  <span className="at">{line.time && clock.format(new Date(line.time))}</span>
                  <span>
                    {line.kind === "stdout" || line.kind === "stderr" ? <Ansi text={line.text} /> : line.text}
                  </span>
                </div>
              )
            );
          })}
        </div>
      </section>
    </>
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
