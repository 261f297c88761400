import { expect, test } from "vitest";
import type { Task } from "../../api/types";
import { listOf } from "./listEnd";
import { intervalsPerCount, newTasksOf } from "./newTasks";
import type { Page } from "./page";

const task = (second: number): Task => ({
  name: `namespaces/n/tasks/${second}`,
  createTime: `2026-01-01T00:00:${String(second).padStart(2, "0")}Z`,
});
const page = (seconds: number[], nextPageToken?: string): Page => ({
  tasks: seconds.map(task),
  nextPageToken,
});

/** Reads pages one after the other, and notes what it is asked for. */
function reader(...pages: Page[]) {
  const tokens: string[] = [];
  const read = async (token: string) => {
    tokens.push(token);
    return pages[tokens.length - 1] ?? {};
  };
  return { tokens, read };
}

test("a task that comes to match below the first page is counted", async () => {
  const { read, tokens } = reader(page([9, 8], "a"), page([6, 5], "b"), page([4, 3], "c"), page([2]));
  const listed = [page([9, 8], "a"), page([5, 4], "b")];
  expect(await newTasksOf(listOf(listed), read)).toEqual({ fresh: [task(6)], isPart: false });
  expect(tokens).toEqual(["", "a", "b"]);
});

test("a newer task with an earlier time does not end the count", async () => {
  const listed = [page([9, 8], "a"), page([7, 6], "b")];
  const first = reader(page([1, 2], "c"), page([9, 8], "a"), page([7, 6], "b"));
  expect(await newTasksOf(listOf(listed), first.read)).toEqual({ fresh: [task(1), task(2)], isPart: false });
  // The last row has left.
  const second = reader(page([1, 9], "c"), page([8, 7], "d"), page([5, 4], "e"), page([5, 4, 3], "f"));
  expect(await newTasksOf(listOf(listed), second.read)).toEqual({ fresh: [task(1)], isPart: false });
  expect(second.tokens).toEqual(["", "c", "d", "b"]);
});

test("where nothing is behind the last row, and that has left, all others are new", async () => {
  const { read, tokens } = reader(page([9, 8], "a"), page([1, 7]));
  expect(await newTasksOf(listOf([page([9, 8], "a"), page([7, 6], "b")]), read)).toEqual({
    fresh: [task(1)],
    isPart: false,
  });
  expect(tokens).toEqual(["", "a", "b"]);
});

test("where the end of a list is not found, what is older than its last row is not counted", async () => {
  const { read } = reader(page([9, 8], "a"), page([5, 4], "b"), { nextPageToken: "c" });
  expect(await newTasksOf(listOf([page([9, 6], "z")]), read)).toEqual({ fresh: [task(8)], isPart: true });
});

test("a list of more pages is counted less often, down to those that are read", () => {
  expect([0, 1, 5, 50].map(intervalsPerCount)).toEqual([1, 1, 5, 10]);
});

test("reading ends at the last row, or below where it has left", async () => {
  const listed = [page([9, 8], "a"), page([5, 4], "b")];
  const first = reader(page([9, 8, 7], "a"), page([5, 4, 3], "b"));
  expect(await newTasksOf(listOf(listed), first.read)).toEqual({ fresh: [task(7)], isPart: false });
  expect(first.tokens).toEqual(["", "a"]);
  const second = reader(page([9, 8, 7], "a"), page([5, 3], "c"), page([2, 1]), page([3, 2]));
  expect(await newTasksOf(listOf(listed), second.read)).toEqual({ fresh: [task(7)], isPart: false });
  expect(second.tokens).toEqual(["", "a", "c", "b"]);
});

test("a whole list is counted to the end of the server's", async () => {
  const { read } = reader(page([9, 8], "a"), page([], "b"), page([5, 2]));
  expect(await newTasksOf(listOf([page([9, 8], "a"), page([5])]), read)).toEqual({
    fresh: [task(2)],
    isPart: false,
  });
});

test("of more pages than a list has, and of very many, a part is counted", async () => {
  const all = Array.from({ length: 50 }, (_, index) => page([59 - index], `${index}`));
  const short = reader(...all);
  expect(await newTasksOf(listOf([page([1], "z")]), short.read)).toEqual({
    fresh: [task(59), task(58)],
    isPart: true,
  });
  const long = reader(...all);
  const { fresh, isPart } = await newTasksOf(
    listOf(Array.from({ length: 20 }, () => page([1], "z"))),
    long.read,
  );
  // One of them is that behind the last row.
  expect([fresh.length, isPart, long.tokens.length]).toEqual([10, true, 11]);
});

test("of an empty list that was searched in part only, nothing is older", async () => {
  const { read } = reader({ nextPageToken: "a" }, page([3]));
  expect(await newTasksOf(listOf([{ nextPageToken: "a" }]), read)).toEqual({
    fresh: [task(3)],
    isPart: false,
  });
});
