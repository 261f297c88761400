import { expect, test } from "vitest";
import type { Task } from "../../api/types";
import { deletedOf, without } from "./deleted";
import type { Page } from "./page";

const task = (second: number): Task => ({
  name: `namespaces/n/tasks/${second}`,
  createTime: `2026-01-01T00:00:${String(second).padStart(2, "0")}Z`,
});
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
  expect(await deletedOf([task(4), task(3), task(1)], read)).toEqual({ deleted: names(3, 1) });
});

test("reading ends once every task is found", async () => {
  const { read, tokens } = reader(
    { tasks: [task(2), task(1)], nextPageToken: "a" },
    { tasks: [], nextPageToken: "b" },
  );
  expect(await deletedOf([task(2), task(1)], read)).toEqual({ deleted: new Set() });
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
  expect(await deletedOf(listed, read)).toEqual({ deleted: names(7, 5, 3) });
  expect(tokens).toEqual(["", "a", "b"]);
});

test("a long list takes several readings, each from the end of the one before", async () => {
  const listed = [task(9), task(7), task(6), task(5), task(3)];
  const first = reader(...Array.from({ length: 20 }, () => ({ tasks: [task(8)], nextPageToken: "more" })));
  const { deleted, next } = await deletedOf(listed, first.read);
  expect(deleted).toEqual(names(9));
  expect(first.tokens).toHaveLength(10);
  // A task that has come into the list above the position meanwhile is not judged.
  const second = reader({ tasks: [task(7), task(5)], nextPageToken: "a" }, { tasks: [task(2)] });
  expect(await deletedOf([task(10), ...listed], second.read, next)).toEqual({ deleted: names(6, 3) });
  expect(second.tokens).toEqual(["more", "a"]);
  expect(second.ends).toEqual(first.ends);
});

test("tasks that were created at the time at which a reading has ended are not judged by the next one", async () => {
  const next = {
    token: "more",
    createdBefore: "2026-01-01T00:00:09.001Z",
    oldest: Date.parse("2026-01-01T00:00:08Z"),
  };
  const { read } = reader({ tasks: [] });
  expect(await deletedOf([task(8), task(7)], read, next)).toEqual({ deleted: names(7) });
});

test("tasks whose times are out of order are all looked for", async () => {
  // The clock of the server was set back before it has created the newest one.
  const { read, tokens, ends } = reader(
    { tasks: [task(2)], nextPageToken: "a" },
    { tasks: [task(9), task(5)] },
  );
  expect(await deletedOf([task(2), task(9), task(8), task(5)], read)).toEqual({ deleted: names(8) });
  expect(tokens).toEqual(["", "a"]);
  expect([...ends]).toEqual(["2026-01-01T00:00:09.001Z"]);
});

test("nothing is read for an empty list", async () => {
  const { read, tokens } = reader({});
  expect(await deletedOf([], read)).toEqual({ deleted: new Set() });
  expect(tokens).toEqual([]);
});

test("a page without a deleted task keeps the rest, and is the same if it has none", () => {
  const page = { tasks: [task(2), task(1)], nextPageToken: "a" };
  expect(without(page, new Set([task(2).name ?? ""]))).toEqual({ tasks: [task(1)], nextPageToken: "a" });
  expect(without(page, new Set(["namespaces/n/tasks/3"]))).toBe(page);
});
