import { useCallback, useEffect, useRef } from "react";

const PAUSE = 1000;

/** Returns a function that calls another one immediately, then at most once in a while, and never misses the last call. */
export function useCoalesced(act: () => void, pause = PAUSE): () => void {
  const latest = useRef(act);
  latest.current = act;
  const state = useRef<{ timer?: ReturnType<typeof setTimeout>; again: boolean }>({ again: false });
  useEffect(() => {
    const own = state.current;
    return () => {
      clearTimeout(own.timer);
      delete own.timer;
    };
  }, []);
  return useCallback(() => {
    const own = state.current;
    if (own.timer !== undefined) {
      own.again = true;
      return;
    }
    const run = () => {
      own.again = false;
      own.timer = setTimeout(() => {
        delete own.timer;
        if (own.again) {
          run();
        }
      }, pause);
      latest.current();
    };
    run();
  }, [pause]);
}
