import { expect, test } from "vitest";
import type { Task } from "../../api/types";
import { newTasksOf } from "./newTasks";
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
  expect(await newTasksOf(listed, read)).toEqual({ fresh: [task(6)], isPart: false });
  expect(tokens).toEqual(["", "a", "b"]);
});

test("reading ends at the last row, or below where it has left", async () => {
  const listed = [page([9, 8], "a"), page([5, 4], "b")];
  const first = reader(page([9, 8, 7], "a"), page([5, 4, 3], "b"));
  expect(await newTasksOf(listed, first.read)).toEqual({ fresh: [task(7)], isPart: false });
  expect(first.tokens).toEqual(["", "a"]);
  const second = reader(page([9, 8, 7], "a"), page([5, 3], "b"));
  expect(await newTasksOf(listed, second.read)).toEqual({ fresh: [task(7)], isPart: false });
  expect(second.tokens).toEqual(["", "a"]);
});

test("a whole list is counted to the end of the server's", async () => {
  const { read } = reader(page([9, 8], "a"), page([], "b"), page([5, 2]));
  expect(await newTasksOf([page([9, 8], "a"), page([5])], read)).toEqual({ fresh: [task(2)], isPart: false });
});

test("of more pages than a list has, and of very many, a part is counted", async () => {
  const all = Array.from({ length: 50 }, (_, index) => page([59 - index], `${index}`));
  const short = reader(...all);
  expect(await newTasksOf([page([1], "z")], short.read)).toEqual({
    fresh: [task(59), task(58)],
    isPart: true,
  });
  const long = reader(...all);
  const { fresh, isPart } = await newTasksOf(
    Array.from({ length: 20 }, () => page([1], "z")),
    long.read,
  );
  expect([fresh.length, isPart, long.tokens.length]).toEqual([10, true, 10]);
});

test("of an empty list that was searched in part only, nothing is older", async () => {
  const { read } = reader({ nextPageToken: "a" }, page([3]));
  expect(await newTasksOf([{ nextPageToken: "a" }], read)).toEqual({ fresh: [task(3)], isPart: false });
});
