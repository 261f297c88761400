import { useEffect, useRef } from "react";
import { readEvery } from "./refresh";
import { useVisible } from "./useStream";

/** Reads again at an interval while the tab is in view, however often a stream changes what was read. */
export function useReadEvery(interval: number, read: () => void): void {
  const isVisible = useVisible();
  const latest = useRef(read);
  latest.current = read;
  useEffect(
    () => (isVisible ? readEvery(interval, () => latest.current()) : undefined),
    [isVisible, interval],
  );
}
