import type { ChangeTasksRequest, ChangeTasksResponse } from "../../api/types";

/** A change of all tasks that match, or a count of them, which takes several calls. */
export interface Progress {
  done: number;
  failed: number;
  errors: string[];
  /** Where a change begins that was counted. */
  start: string;
  /** Where the next call continues; empty at the end. */
  next: string;
  isOver: boolean;
}

export const BEGINNING: Progress = { done: 0, failed: 0, errors: [], start: "", next: "", isOver: false };
/** Different reasons that are shown. */
const MAX_ERRORS = 5;

/**
 * Makes the calls that are left, and reports how far it is after each. One that fails can be continued from what was reported last.
 */
export async function change(
  call: (request: ChangeTasksRequest) => Promise<ChangeTasksResponse>,
  request: ChangeTasksRequest,
  from: Progress,
  report: (progress: Progress) => void,
): Promise<Progress> {
  let progress = from;
  while (!progress.isOver) {
    const page = progress.next || request.pageToken;
    const answer = await call({ ...request, ...(page && { pageToken: page }) });
    const errors = new Set([...progress.errors, ...(answer.errors ?? [])]);
    progress = {
      done: progress.done + Number(answer.count ?? 0),
      failed: progress.failed + Number(answer.failedCount ?? 0),
      errors: [...errors].slice(0, MAX_ERRORS),
      // The last one: it has the oldest task that was counted, too.
      start: answer.startToken || progress.start,
      next: answer.nextPageToken ?? "",
      isOver: !answer.nextPageToken,
    };
    report(progress);
  }
  return progress;
}
