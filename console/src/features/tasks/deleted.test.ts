import { expect, test } from "vitest";
import type { Task } from "../../api/types";
import { deletedOf, without } from "./deleted";
import type { Page } from "./page";

const task = (second: number): Task => ({
  name: `namespaces/n/tasks/${second}`,
  createTime: `2026-01-01T00:00:${String(second).padStart(2, "0")}Z`,
});
const names = (...seconds: number[]) => new Set(seconds.map((second) => task(second).name));

/** Reads pages one after the other, and counts them. */
function reader(...pages: Page[]) {
  const tokens: string[] = [];
  const read = async (token: string) => {
    tokens.push(token);
    return pages[tokens.length - 1] ?? {};
  };
  return { tokens, read };
}

test("a task that no answer has any more is deleted", async () => {
  const { read } = reader({ tasks: [task(5), task(4)] });
  expect(await deletedOf([task(4), task(3), task(1)], read)).toEqual(names(3, 1));
});

test("reading ends once every task is found", async () => {
  const { read, tokens } = reader(
    { tasks: [task(2), task(1)], nextPageToken: "a" },
    { tasks: [], nextPageToken: "b" },
  );
  expect(await deletedOf([task(2), task(1)], read)).toEqual(new Set());
  expect(tokens).toEqual([""]);
});

test("pages are read down to the oldest task, and what is on further ones is not deleted", async () => {
  const listed = [task(9), task(7), task(5), task(3)];
  const { read, tokens } = reader(
    { tasks: [task(9), task(8)], nextPageToken: "a" },
    { tasks: [], nextPageToken: "b" },
    { tasks: [task(6), task(2)], nextPageToken: "c" },
    { tasks: [task(1)] },
  );
  expect(await deletedOf(listed, read)).toEqual(names(7, 5, 3));
  expect(tokens).toEqual(["", "a", "b"]);
  const endless = reader(...Array.from({ length: 20 }, () => ({ tasks: [task(8)], nextPageToken: "more" })));
  expect(await deletedOf(listed, endless.read)).toEqual(names(9));
  expect(endless.tokens).toHaveLength(10);
});

test("nothing is read for an empty list", async () => {
  const { read, tokens } = reader({});
  expect(await deletedOf([], read)).toEqual(new Set());
  expect(tokens).toEqual([]);
});

test("a page without a deleted task keeps the rest, and is the same if it has none", () => {
  const page = { tasks: [task(2), task(1)], nextPageToken: "a" };
  expect(without(page, new Set([task(2).name ?? ""]))).toEqual({ tasks: [task(1)], nextPageToken: "a" });
  expect(without(page, new Set(["namespaces/n/tasks/3"]))).toBe(page);
});
