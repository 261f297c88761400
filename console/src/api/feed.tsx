import { createContext, type ReactNode, useContext, useEffect, useRef, useState } from "react";
import { useNamespace } from "../namespace";
import { query } from "./format";
import type { WatchTasksResponse } from "./types";
import { type Link, useStream } from "./useStream";

interface Follower {
  receive: (message: WatchTasksResponse) => void;
  /** What was listed before may be outdated. */
  reload: () => void;
}

interface Feed {
  link: Link;
  followers: Set<Follower>;
}

const Context = createContext<Feed>({ link: { state: "connecting" }, followers: new Set() });

/** Changes of all tasks of the namespace, by one stream for the whole page. */
export function FeedProvider({ children }: { children: ReactNode }) {
  const namespace = useNamespace();
  const position = useRef({ namespace, token: "" });
  const [followers] = useState(() => new Set<Follower>());
  if (position.current.namespace !== namespace) {
    position.current = { namespace, token: "" };
  }
  const each = (act: (follower: Follower) => void) => {
    for (const follower of followers) {
      act(follower);
    }
  };
  const link = useStream<WatchTasksResponse>(
    namespace,
    () =>
      `namespaces/${namespace}/tasks:watch${query({ statesOnly: "true", token: position.current.token })}`,
    (message) => {
      position.current.token = message.token || position.current.token;
      if (message.resync) {
        each((follower) => follower.reload());
      }
      each((follower) => follower.receive(message));
    },
    {
      keepHidden: useIsKeeper(),
      opened: () => {
        // With a position, nothing was missed.
        if (!position.current.token) {
          each((follower) => follower.reload());
        }
      },
    },
  );
  return <Context value={{ link, followers }}>{children}</Context>;
}

/** Follows the changes of the namespace's tasks. */
export function useFeed(follower: Follower): Link {
  const { link, followers } = useContext(Context);
  const latest = useRef(follower);
  latest.current = follower;
  useEffect(() => {
    const own: Follower = {
      receive: (message) => latest.current.receive(message),
      reload: () => latest.current.reload(),
    };
    followers.add(own);
    return () => {
      followers.delete(own);
    };
  }, [followers]);
  return link;
}

/**
 * Whether this tab is the one of the browser that keeps its feed while it is hidden, so that the others learn that
 * something waits for a person. Browsers have locks over HTTPS and on this machine only.
 */
function useIsKeeper(): boolean {
  const [isKeeper, setIsKeeper] = useState(false);
  useEffect(() => {
    const abort = new AbortController();
    const hold = () =>
      new Promise<void>((resolve) => {
        abort.signal.addEventListener("abort", () => resolve());
        setIsKeeper(true);
      });
    navigator.locks?.request("rota.feed", { signal: abort.signal }, hold).catch(() => {});
    return () => abort.abort();
  }, []);
  return isKeeper;
}
