import { useEffect, useState } from "react";
import { isSignedIn } from "../api/token";

/** Keyboard of a list: j and k move, Enter opens, x selects. Returns the name of the current row, which is kept in view. */
export function useRows<T extends { name?: string }>(
  rows: readonly T[],
  open: (row: T) => void,
  select?: (row: T) => void,
): string | undefined {
  // Other rows may leave the list meanwhile.
  const [current, setCurrent] = useState<string>();
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
      const index = rows.findIndex(({ name }) => name === current);
      const row = rows[index];
      if (event.key === "j") {
        setCurrent(rows[Math.min(index + 1, rows.length - 1)]?.name);
      } else if (event.key === "k") {
        setCurrent(rows[Math.max(index - 1, 0)]?.name);
      } else if (event.key === "Enter" && row) {
        open(row);
      } else if (event.key === "x" && row) {
        select?.(row);
      }
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, [rows, open, select, current]);
  useEffect(() => {
    if (current !== undefined) {
      document.querySelector('tr[aria-current="true"]')?.scrollIntoView({ block: "nearest" });
    }
  }, [current]);
  return current;
}
