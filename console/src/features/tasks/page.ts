import { get } from "../../api/client";
import type { SearchTasksResponse, Task, TaskFilter } from "../../api/types";
import { filters, type TaskSearch } from "./filters";

/** Part of a list of tasks. */
export interface Page {
  tasks?: Task[];
  nextPageToken?: string | undefined;
  /** Of a search: the part of a text that has its words, by the name of the task. */
  snippets?: Record<string, string>;
  /** Of a search: how many revisions are not searched yet. */
  behind?: number;
}

/** Reads a page of the tasks that match: by their fields, or by their fields and the words of their texts. */
export async function readPage(
  namespace: string,
  search: TaskSearch,
  token: string,
  signal?: AbortSignal,
  more?: TaskFilter,
): Promise<Page> {
  const page = token ? `&pageToken=${encodeURIComponent(token)}` : "";
  if (!search.text) {
    return get<Page>(`namespaces/${namespace}/tasks${filters(search, 100, more)}${page}`, signal);
  }
  const text = `&text=${encodeURIComponent(search.text)}`;
  const path = `namespaces/${namespace}/tasks:search${filters(search)}${text}${page}`;
  return pageOf(await get<SearchTasksResponse>(path, signal));
}

/** Returns the tasks of an answer to a search. */
export function pageOf(answer: SearchTasksResponse): Page {
  const hits = answer.hits ?? [];
  return {
    tasks: hits.flatMap(({ task }) => task ?? []),
    snippets: Object.fromEntries(hits.map(({ task, snippet }) => [task?.name ?? "", snippet ?? ""])),
    behind: Math.max(0, Number(answer.revision ?? 0) - Number(answer.indexedRevision ?? 0)),
    nextPageToken: answer.nextPageToken,
  };
}
