import type { Task } from "../../api/types";
import type { Page } from "./page";

/** Pages of the server that are read at most, to compare a list with them. */
export const MAX_PAGES = 10;

/** A list of tasks, newest first, as a page of the console has it. */
export interface List {
  tasks: readonly Task[];
  /** Token of its next page, if there may be one. */
  next: string | undefined;
}

/** A list with the number of pages that it was read in. */
export interface Listed extends List {
  pages: number;
}

/** Returns the list that pages make up. */
export function listOf(pages: readonly Page[]): Listed {
  return {
    tasks: pages.flatMap(({ tasks = [] }) => tasks),
    next: pages.at(-1)?.nextPageToken || undefined,
    pages: pages.length,
  };
}

/**
 * Returns a list with the names of the next tasks behind its end, if there are any. Where the last ones of the list are deleted from the
 * server, these show that its end was passed.
 */
export async function withBehind(list: List, read: (token: string) => Promise<Page>): Promise<List> {
  if (!list.next) {
    return list;
  }
  const { tasks = [], nextPageToken } = await read(list.next);
  const behind = tasks.map(({ name = "" }) => ({ name }));
  return {
    tasks: [...list.tasks, ...behind],
    next: behind.length > 0 ? undefined : nextPageToken || undefined,
  };
}
