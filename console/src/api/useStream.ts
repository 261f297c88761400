import { useEffect, useRef, useState, useSyncExternalStore } from "react";
import { isTransient, stream } from "./client";
import { isSignedIn, onSignIn, signInChanges } from "./token";

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 10_000;

/** Whether a stream is connected, ended for good, or tried again; then with the error. */
export interface Link {
  state: "connecting" | "live" | "ended" | "lost";
  error?: unknown;
}

/** Returns what a page shows of a stream that does not run. */
export function troubleOf(link: Link): string {
  const why = link.error instanceof Error ? `: ${link.error.message}` : "";
  return link.state === "lost" ? `Connection lost, trying again${why}.` : "";
}

/** Whether the tab is in view. */
export function useVisible(): boolean {
  return useSyncExternalStore(
    (listener) => {
      document.addEventListener("visibilitychange", listener);
      return () => document.removeEventListener("visibilitychange", listener);
    },
    () => document.visibilityState === "visible",
  );
}

interface Options {
  opened?: () => void;
  keepHidden?: boolean;
}

/**
 * Keeps a stream open while the component is in view: a browser has six connections to a server, for all of its tabs.
 * `path` is called at each attempt, so that it continues from the last position; `null` opens none. `opened` is called once the
 * server sends whatever happens from now on: what was listed before may lack what happened meanwhile.
 */
export function useStream<T>(
  key: string | null,
  path: () => string,
  receive: (message: T) => void,
  { opened = () => {}, keepHidden = false }: Options = {},
): Link {
  const [link, setLink] = useState<Link>({ state: "connecting" });
  const signIns = useSyncExternalStore(onSignIn, signInChanges);
  const isOpen = (useVisible() || keepHidden) && isSignedIn();
  const latest = useRef({ path, receive, opened });
  latest.current = { path, receive, opened };
  // biome-ignore lint/correctness/useExhaustiveDependencies: who has signed in again continues
  useEffect(() => {
    if (key === null || !isOpen) {
      return;
    }
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let pause = FIRST_PAUSE;
    const open = async () => {
      try {
        await stream<T>(
          latest.current.path(),
          abort.signal,
          (message) => {
            pause = FIRST_PAUSE;
            latest.current.receive(message);
          },
          () => {
            setLink({ state: "live" });
            latest.current.opened();
          },
        );
        setLink({ state: "ended" });
        return;
      } catch (error) {
        if (abort.signal.aborted) {
          return;
        }
        if (!isTransient(error)) {
          setLink({ state: "ended", error });
          return;
        }
        setLink({ state: "lost", error });
      }
      timer = setTimeout(open, pause);
      pause = Math.min(pause * 2, LONGEST_PAUSE);
    };
    void open();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [key, isOpen, signIns]);
  return link;
}
