import { expect, test } from "vitest";
import type { ChangeTasksRequest } from "../../api/types";
import { BEGINNING, change, type Progress } from "./change";

const ANSWERS = [
  { startToken: "9.0", nextPageToken: "5.0", count: "3" },
  { startToken: "9.1", nextPageToken: "2.3", count: "1", failedCount: "1", errors: ["no"] },
  { count: "2", failedCount: "1", errors: ["no"] },
];

test("calls continue to the end, and are added up", async () => {
  const tokens: (string | undefined)[] = [];
  const call = async (request: ChangeTasksRequest) => {
    tokens.push(request.pageToken);
    return ANSWERS[tokens.length - 1] ?? {};
  };
  const reports: number[] = [];
  const done = await change(call, { action: "TASK_ACTION_CANCEL" }, BEGINNING, ({ done }) =>
    reports.push(done),
  );
  expect(done).toEqual({ done: 6, failed: 2, errors: ["no"], start: "9.1", next: "", isOver: true });
  expect(tokens).toEqual([undefined, "5.0", "2.3"]);
  expect(reports).toEqual([3, 4, 6]);
});

test("what has failed continues where it was", async () => {
  const tokens: (string | undefined)[] = [];
  let isBroken = true;
  const call = async (request: ChangeTasksRequest) => {
    tokens.push(request.pageToken);
    if (tokens.length === 2 && isBroken) {
      throw new Error("cut off");
    }
    return tokens.length === 1 ? { count: "3", nextPageToken: "5.3" } : { count: "2" };
  };
  let last: Progress = BEGINNING;
  const report = (progress: Progress) => {
    last = progress;
  };
  await expect(change(call, { pageToken: "9.0" }, last, report)).rejects.toThrow("cut off");
  isBroken = false;
  expect((await change(call, { pageToken: "9.0" }, last, report)).done).toBe(5);
  expect(tokens).toEqual(["9.0", "5.3", "5.3"]);
});
