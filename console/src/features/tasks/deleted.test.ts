import { expect, test } from "vitest";
import type { Task } from "../../api/types";
import { deletedOf, without } from "./deleted";
import { isEnded } from "./ended";
import type { List } from "./listEnd";
import type { Page } from "./page";

const task = (second: number): Task => ({
  name: `namespaces/n/tasks/${second}`,
  createTime: `2026-01-01T00:00:${String(second).padStart(2, "0")}Z`,
  status: { state: "TASK_STATE_SUCCEEDED" },
});
const running = (second: number): Task => ({ ...task(second), status: { state: "TASK_STATE_RUNNING" } });
const listOf = (tasks: Task[], next?: string): List => ({ tasks, next });
const names = (...seconds: number[]) => new Set(seconds.map((second) => task(second).name));

/** Reads pages one after the other, and notes what it is asked for. */
function reader(...pages: Page[]) {
  const tokens: string[] = [];
  const ends = new Set<string>();
  const read = async (token: string, createdBefore: string) => {
    tokens.push(token);
    ends.add(createdBefore);
    return pages[tokens.length - 1] ?? {};
  };
  return { tokens, ends, read };
}

test("a task that no answer has any more is deleted", async () => {
  const { read } = reader({ tasks: [task(5), task(4)] });
  const listed = listOf([task(4), task(3), running(2), task(1)]);
  expect(await deletedOf(listed, isEnded, read)).toEqual({ deleted: names(3, 1) });
});

test("reading ends once every task is found", async () => {
  const { read, tokens } = reader(
    { tasks: [task(2), task(1)], nextPageToken: "a" },
    { tasks: [], nextPageToken: "b" },
  );
  expect(await deletedOf(listOf([task(2), task(1)], "next"), isEnded, read)).toEqual({ deleted: new Set() });
  expect(tokens).toEqual([""]);
});

test("pages are read down to the last task, and what is on further ones is not deleted", async () => {
  const { read, tokens } = reader(
    { tasks: [task(9), task(8)], nextPageToken: "a" },
    { tasks: [], nextPageToken: "b" },
    { tasks: [task(6), task(3)], nextPageToken: "c" },
    { tasks: [task(1)] },
  );
  const listed = listOf([task(9), task(7), task(5), task(3)]);
  expect(await deletedOf(listed, isEnded, read)).toEqual({ deleted: names(7, 5) });
  expect(tokens).toEqual(["", "a", "b"]);
});

test("where the last tasks are deleted, reading ends behind the list", async () => {
  const { read, tokens } = reader(
    { tasks: [task(9), task(8)], nextPageToken: "a" },
    // Behind the list, of which the second part follows.
    { tasks: [], nextPageToken: "next too" },
    { tasks: [task(6)], nextPageToken: "b" },
    { tasks: [task(2), task(1)] },
    { tasks: [task(4), task(2)], nextPageToken: "c" },
    { tasks: [task(1)] },
  );
  const listed = listOf([task(9), task(7), task(5), task(3)], "next");
  expect(await deletedOf(listed, isEnded, read)).toEqual({ deleted: names(7, 5, 3) });
  expect(tokens).toEqual(["", "next", "a", "next too", "b"]);
});

test("a long list takes several readings, each from the end of the one before", async () => {
  const listed = [task(9), task(7), task(6), task(5), task(3)];
  const first = reader(
    ...Array.from({ length: 9 }, () => ({ tasks: [task(8)], nextPageToken: "more" })),
    { tasks: [task(7)], nextPageToken: "rest" },
    { tasks: [task(7)], nextPageToken: "too far" },
  );
  const { deleted, next } = await deletedOf(listOf(listed), isEnded, first.read);
  expect(deleted).toEqual(names(9));
  expect(first.tokens).toHaveLength(10);
  // A task that has come into the list meanwhile is not judged.
  const second = reader({ tasks: [task(5)], nextPageToken: "a" }, { tasks: [task(2)] });
  const longer = listOf([task(10), ...listed, task(1)]);
  expect(await deletedOf(longer, isEnded, second.read, next)).toEqual({ deleted: names(6, 3) });
  expect(second.tokens).toEqual(["rest", "a"]);
  expect(second.ends).toEqual(first.ends);
});

test("tasks whose times are out of order are all looked for", async () => {
  // The clock of the server was set back before it has created the newest one.
  const { read, tokens, ends } = reader(
    { tasks: [task(2)], nextPageToken: "a" },
    { tasks: [task(9), task(5)] },
  );
  const listed = listOf([task(2), task(9), task(8), task(5)]);
  expect(await deletedOf(listed, isEnded, read)).toEqual({ deleted: names(8) });
  expect(tokens).toEqual(["", "a"]);
  expect([...ends]).toEqual(["2026-01-01T00:00:09.001Z"]);
});

test("a task that is older by a clock set back, and comes first, hides no others", async () => {
  const { read } = reader(
    { tasks: [running(2)], nextPageToken: "a" },
    // Behind the list.
    { tasks: [task(1)] },
    { tasks: [task(9), task(8)], nextPageToken: "b" },
  );
  const listed = listOf([running(2), task(9), task(8)], "next");
  expect(await deletedOf(listed, isEnded, read)).toEqual({ deleted: new Set() });
});

test("nothing is read where no task can be deleted", async () => {
  const { read, tokens } = reader({});
  expect(await deletedOf(listOf([running(1)], "next"), isEnded, read)).toEqual({ deleted: new Set() });
  expect(tokens).toEqual([]);
});

test("a page without a deleted task keeps the rest, and is the same if it has none", () => {
  const page = { tasks: [task(2), task(1)], nextPageToken: "a" };
  expect(without(page, new Set([task(2).name ?? ""]))).toEqual({ tasks: [task(1)], nextPageToken: "a" });
  expect(without(page, new Set(["namespaces/n/tasks/3"]))).toBe(page);
});
