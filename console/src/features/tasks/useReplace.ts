import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import type { Task } from "../../api/types";
import { createAndSettle, SettledError } from "./settle";

/** Replaces a task as the person has seen it: when its form was opened, when `see` was called, or in the refusal of a call. */
export function useReplace(task: Task) {
  const cache = useQueryClient();
  const [seen, setSeen] = useState(task);
  return {
    seen,
    see: () => setSeen(task),
    replace: async (key: string, create: () => Promise<Task>) => {
      try {
        return await createAndSettle(seen, key, create);
      } catch (error) {
        if (error instanceof SettledError) {
          setSeen(error.task);
        }
        // No stream has what becomes of a task that has ended.
        void cache.invalidateQueries({ queryKey: ["task"] });
        throw error;
      }
    },
  };
}
