import { useEffect, useState } from "react";
import { isSignedIn } from "../api/token";

/** Keyboard of a list: j and k move, Enter opens, x selects. Returns the index of the current row, which is kept in view. */
export function useRows(
  count: number,
  open: (index: number) => void,
  select?: (index: number) => void,
): number {
  const [row, setRow] = useState(-1);
  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      const target = event.target;
      const busy =
        target instanceof HTMLElement &&
        /^(INPUT|TEXTAREA|SELECT|BUTTON|A)$/.test(target.tagName) &&
        event.key === "Enter";
      const typing = target instanceof HTMLElement && /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
      const isBox = target instanceof HTMLInputElement && target.type === "checkbox";
      if (
        busy ||
        (typing && !isBox) ||
        event.ctrlKey ||
        event.metaKey ||
        !isSignedIn() ||
        document.querySelector("dialog[open]")
      ) {
        return;
      }
      if (event.key === "j") {
        setRow((row) => Math.min(row + 1, count - 1));
      } else if (event.key === "k") {
        setRow((row) => Math.max(row - 1, 0));
      } else if (event.key === "Enter" && row >= 0 && row < count) {
        open(row);
      } else if (event.key === "x" && row >= 0 && row < count) {
        select?.(row);
      }
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, [count, open, select, row]);
  useEffect(() => {
    if (row >= 0) {
      document.querySelector('tr[aria-current="true"]')?.scrollIntoView({ block: "nearest" });
    }
  }, [row]);
  return row;
}
