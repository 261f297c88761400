import { useEffect, useRef } from "react";
import { useVisible } from "./useStream";

/**
 * Reads again at an interval, in milliseconds, while the tab is in view. The interval of a query begins again with each change of its
 * data: it never passes while a stream makes one.
 */
export function useReadEvery(interval: number, read: () => void): void {
  const isVisible = useVisible();
  const latest = useRef(read);
  latest.current = read;
  useEffect(() => {
    if (!isVisible) {
      return;
    }
    const timer = setInterval(() => latest.current(), interval);
    return () => clearInterval(timer);
  }, [isVisible, interval]);
}
