import {
  type Context,
  createContext,
  type ReactNode,
  useContext,
  useEffect,
  useRef,
  useState,
  useSyncExternalStore,
} from "react";
import { ofBase } from "../base";
import { useNamespace } from "../namespace";
import { Changes } from "./changes";
import { query } from "./format";
import { isSignedIn, onSignIn, signInChanges } from "./token";
import type { WatchTasksResponse, WatchWorkflowsResponse } from "./types";
import { type Link, useStream } from "./useStream";

interface Message {
  token?: string;
  resync?: boolean;
}

interface Follower<T> {
  receive: (message: T) => void;
  /** What was listed before may be outdated. */
  reload: () => void;
}

interface Feed<T> {
  link: Link;
  followers: Set<Follower<T>>;
}

/** A kind of things with a feed. */
interface Kind<T> {
  kind: string;
  path: (namespace: string, token: string) => string;
  context: Context<Feed<T>>;
  /** What arrives while lists are read. */
  changes: Changes<T>;
}

/** Messages of the tab with the stream to the others. */
type Shared<T> = { message: T } | { link: Link } | { reload: true };

const LIVE: Link = { state: "live" };

/**
 * Changes of all things of one kind in the namespace, by one stream for all tabs of the browser: one of them, which has a lock,
 * reads it and passes it on, also out of view. Only a tab that can read it has the lock: one that is signed out, or whose stream
 * was refused, leaves it to the others. Browsers have locks over HTTPS and on this machine only; elsewhere each tab in view has a
 * stream of its own.
 */
export function FeedProvider<T extends Message>({
  of: { kind, path, context: Context, changes },
  children,
}: {
  of: Kind<T>;
  children: ReactNode;
}) {
  const namespace = useNamespace();
  const name = ofBase(`rota.${kind}.${namespace}`);
  const isIn = useSyncExternalStore(onSignIn, isSignedIn);
  const reader = `${name} ${useSyncExternalStore(onSignIn, signInChanges)}`;
  const [refused, setRefused] = useState("");
  const lock = useLock(name, isIn && refused !== reader);
  const position = useRef({ namespace, token: "" });
  const others = useRef<BroadcastChannel>(null);
  const [followers] = useState(() => new Set<Follower<T>>());
  const [sharedLink, setSharedLink] = useState<Link>();
  if (position.current.namespace !== namespace) {
    position.current = { namespace, token: "" };
  }
  const deliver = (message: T) => {
    position.current.token = message.token || position.current.token;
    changes.add(message);
    for (const follower of followers) {
      if (message.resync) {
        follower.reload();
      }
      follower.receive(message);
    }
  };
  const reload = () => {
    for (const follower of followers) {
      follower.reload();
    }
  };
  const share = (shared: Shared<T>) => lock === "held" && others.current?.postMessage(shared);
  const latest = useRef({ deliver, reload, lock });
  latest.current = { deliver, reload, lock };
  useEffect(() => {
    const channel = new BroadcastChannel(name);
    channel.onmessage = ({ data }: MessageEvent<Shared<T>>) => {
      // What is missed while the tab is signed out is read afterwards.
      if (latest.current.lock !== "waiting" || !isSignedIn()) {
        return;
      }
      if ("message" in data) {
        setSharedLink(LIVE);
        latest.current.deliver(data.message);
      } else if ("link" in data) {
        setSharedLink(data.link);
      } else {
        latest.current.reload();
      }
    };
    others.current = channel;
    return () => channel.close();
  }, [name]);
  const own = useStream<T>(
    lock === "waiting" ? null : namespace,
    () => path(namespace, position.current.token),
    (message) => {
      deliver(message);
      share({ message });
    },
    {
      keepHidden: lock === "held",
      opened: () => {
        // With a position, nothing was missed.
        if (!position.current.token) {
          reload();
          share({ reload: true });
        }
      },
    },
  );
  const ownLink = useRef({ share, reader });
  ownLink.current = { share, reader };
  useEffect(() => {
    if (own.state === "ended") {
      setSharedLink(undefined);
      setRefused(ownLink.current.reader);
    } else {
      ownLink.current.share({ link: own });
    }
  }, [own]);
  const link = lock === "waiting" ? (sharedLink ?? (refused === reader ? own : LIVE)) : own;
  return <Context value={{ link, followers }}>{children}</Context>;
}

/** Follows the changes of one kind. */
function useFollower<T>(of: Kind<T>, follower: Follower<T>): Link {
  const { link, followers } = useContext(of.context);
  const latest = useRef(follower);
  latest.current = follower;
  useEffect(() => {
    const own: Follower<T> = {
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

/** Whether this tab has a lock of the browser, leaves it to another one, or could not have one. */
function useLock(name: string, isWanted: boolean): "held" | "waiting" | "none" {
  const [held, setHeld] = useState("");
  useEffect(() => {
    if (!isWanted) {
      return;
    }
    const abort = new AbortController();
    const hold = () =>
      new Promise<void>((resolve) => {
        abort.signal.addEventListener("abort", () => resolve());
        setHeld(name);
      });
    navigator.locks?.request(name, { signal: abort.signal }, hold).catch(() => {});
    return () => {
      abort.abort();
      setHeld("");
    };
  }, [name, isWanted]);
  if (!navigator.locks) {
    return "none";
  }
  return held === name ? "held" : "waiting";
}

function kindOf<T>(kind: string, path: Kind<T>["path"]): Kind<T> {
  return {
    kind,
    path,
    context: createContext<Feed<T>>({ link: { state: "connecting" }, followers: new Set() }),
    changes: new Changes(),
  };
}

export const TASKS = kindOf<WatchTasksResponse>(
  "tasks",
  (namespace, token) => `namespaces/${namespace}/tasks:watch${query({ statesOnly: "true", token })}`,
);
export const WORKFLOWS = kindOf<WatchWorkflowsResponse>(
  "workflows",
  (namespace, token) => `namespaces/${namespace}/workflows:watch${query({ token })}`,
);

/** Follows the changes of the namespace's tasks. */
export function useFeed(follower: Follower<WatchTasksResponse>): Link {
  return useFollower(TASKS, follower);
}

/** Follows the changes of the namespace's workflows. */
export function useWorkflowFeed(follower: Follower<WatchWorkflowsResponse>): Link {
  return useFollower(WORKFLOWS, follower);
}
