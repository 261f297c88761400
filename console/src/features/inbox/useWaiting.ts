import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useRef } from "react";
import { get } from "../../api/client";
import { query } from "../../api/format";
import type { Task, WatchTasksResponse } from "../../api/types";
import { useStream } from "../../api/useStream";
import { useNamespace } from "../../namespace";

const WAITS = "TASK_STATE_INPUT_REQUIRED";

/** Tasks that wait for a person. */
export function useWaiting(): { tasks: Task[]; error: unknown } {
  const namespace = useNamespace();
  const key = ["waiting", namespace];
  const found = useQuery({
    queryKey: key,
    queryFn: ({ signal }) =>
      get<{ tasks?: Task[] }>(
        `namespaces/${namespace}/tasks${query({ pageSize: 100, "filter.states": WAITS })}`,
        signal,
      ),
  });
  return { tasks: found.data?.tasks ?? [], error: found.error };
}

/** Keeps the list current while a page is open: once for the whole page. */
export function useWaitingUpdates(): void {
  const namespace = useNamespace();
  const cache = useQueryClient();
  const position = useRef("");
  useStream<WatchTasksResponse>(
    namespace,
    () => `namespaces/${namespace}/tasks:watch${query({ statesOnly: "true", token: position.current })}`,
    (message) => {
      position.current = message.token || position.current;
      const moved = message.events?.some(
        (event) =>
          event.state?.to === WAITS ||
          event.state?.from === WAITS ||
          event.inputReceived ||
          event.inputRequest,
      );
      if (message.resync || moved) {
        void cache.invalidateQueries({ queryKey: ["waiting", namespace] });
      }
    },
    { opened: () => void cache.invalidateQueries({ queryKey: ["waiting", namespace] }) },
  );
}
