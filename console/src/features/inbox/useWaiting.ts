import { useQuery, useQueryClient } from "@tanstack/react-query";
import { newer, withChange } from "../../api/changes";
import { get } from "../../api/client";
import { TASKS, useFeed } from "../../api/feed";
import { query } from "../../api/format";
import { refresh } from "../../api/refresh";
import type { Task } from "../../api/types";
import { useCoalesced } from "../../api/useCoalesced";
import { useNamespace } from "../../namespace";
import { hasFailedChecks } from "../tasks/replay";

/** Tasks of each kind that the inbox shows. */
const MOST = 200;
const DAY = 24 * 60 * 60 * 1000;
/** Work that has not passed its checks before these days is a matter of `rota dead-letters`. */
export const DAYS_OF_FAILED_CHECKS = 7;
/** What the inbox asks the server for: tasks that ask something, those that keep failing, and work that has not passed its checks. */
const kinds = (): Record<string, string>[] => [
  { "filter.openQuestions": "true" },
  { "filter.needsAttention": "true" },
  {
    "filter.deadLetters": "true",
    "filter.failureClasses": "FAILURE_CLASS_CHECKS",
    "filter.endedAfter": new Date(Date.now() - DAYS_OF_FAILED_CHECKS * DAY).toISOString(),
  },
];
/** Pages that are read for them. A page may be empty: many tasks may wait for something else than a person. */
const MOST_PAGES = 20;

export interface Waiting {
  tasks: Task[];
  /** Whether further tasks may wait than the inbox shows. */
  more: boolean;
  /** Whether the reading has ended before all tasks were looked through: older ones may wait, however few are shown. */
  isCut: boolean;
}

/** Reads all tasks that wait for a person, up to a bound. */
async function read(namespace: string, signal: AbortSignal): Promise<Waiting> {
  const parts = await Promise.all(kinds().map((kind) => readKind(namespace, kind, signal)));
  const tasks = new Map<string | undefined, Task>();
  for (const task of parts.flatMap((part) => part.tasks)) {
    const known = tasks.get(task.name);
    tasks.set(task.name, known ? newer(known, task) : task);
  }
  return {
    tasks: [...tasks.values()],
    more: parts.some((part) => part.more),
    isCut: parts.some((part) => part.isCut),
  };
}

async function readKind(
  namespace: string,
  kind: Record<string, string>,
  signal: AbortSignal,
): Promise<Waiting> {
  const tasks: Task[] = [];
  let token = "";
  for (let page = 0; page < MOST_PAGES && tasks.length < MOST; page += 1) {
    const found = await get<{ tasks?: Task[]; nextPageToken?: string }>(
      `namespaces/${namespace}/tasks${query({ pageSize: 100, ...kind, pageToken: token })}`,
      signal,
    );
    tasks.push(...(found.tasks ?? []));
    token = found.nextPageToken ?? "";
    if (!token) {
      break;
    }
  }
  const isFull = tasks.length >= MOST;
  return { tasks, more: token !== "" && isFull, isCut: token !== "" && !isFull };
}

const waits = (task: Task) =>
  (task.status?.pendingInput ?? []).length > 0 ||
  task.status?.attention !== undefined ||
  hasFailedChecks(task);

/** Tasks that wait for a person. */
export function useWaiting() {
  const namespace = useNamespace();
  return useQuery({
    queryKey: ["waiting", namespace],
    queryFn: async ({ signal }) => {
      const found = await TASKS.changes.during(() => read(namespace, signal), withChange);
      return { ...found, tasks: found.tasks.filter(waits) };
    },
  });
}

/** Keeps the list current while a page is open: once for the whole page. */
export function useWaitingUpdates(): void {
  const namespace = useNamespace();
  const cache = useQueryClient();
  const key = ["waiting", namespace];
  const reload = useCoalesced(() => void refresh(cache, key));
  useFeed({
    reload,
    receive: ({ task }) => {
      const isKnown = cache.getQueryData<Waiting>(key)?.tasks.some((known) => known.name === task?.name);
      if (task && (waits(task) || isKnown)) {
        reload();
      }
    },
  });
}
