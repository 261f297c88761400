import { useEffect, useRef, useState } from "react";
import { ApiError, stream } from "./client";

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 10_000;

/** Whether a stream is connected, ended for good, or tried again. */
export type Link = "connecting" | "live" | "ended" | "lost";

/**
 * Keeps a stream open while the component is shown. `path` is called at each attempt, so that it continues from the last
 * position; `null` opens none. `opened` is called once the server sends whatever happens from now on: what was listed before may
 * lack what happened meanwhile. `isOver` returns whether the end of the stream is the end of what it shows.
 */
export function useStream<T>(
  key: string | null,
  path: () => string,
  receive: (message: T) => void,
  { isOver = () => false, opened = () => {} }: { isOver?: () => boolean; opened?: () => void } = {},
): Link {
  const [link, setLink] = useState<Link>("connecting");
  const latest = useRef({ path, receive, isOver, opened });
  latest.current = { path, receive, isOver, opened };
  useEffect(() => {
    if (key === null) {
      return;
    }
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let pause = FIRST_PAUSE;
    const open = async () => {
      setLink((link) => (link === "lost" ? "lost" : "connecting"));
      try {
        await stream<T>(
          latest.current.path(),
          abort.signal,
          (message) => {
            pause = FIRST_PAUSE;
            latest.current.receive(message);
          },
          () => {
            setLink("live");
            latest.current.opened();
          },
        );
        if (latest.current.isOver()) {
          setLink("ended");
          return;
        }
      } catch (error) {
        if (abort.signal.aborted) {
          return;
        }
        if (error instanceof ApiError && [401, 403, 404].includes(error.status)) {
          setLink("ended");
          return;
        }
        setLink("lost");
      }
      timer = setTimeout(open, pause);
      pause = Math.min(pause * 2, LONGEST_PAUSE);
    };
    void open();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [key]);
  return link;
}
