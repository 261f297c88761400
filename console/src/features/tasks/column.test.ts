import { expect, test } from "vitest";
import type { Task } from "../../api/types";
import { moved } from "./column";

const task = (name: string, day: number, logSeq = "1"): Task => ({
  name,
  createTime: `2026-11-${10 + day}T00:00:00${day % 2 ? "Z" : ".5Z"}`,
  status: { logSeq },
});
const [here, elsewhere] = [
  { isHere: true, isFiltered: false },
  { isHere: false, isFiltered: false },
];
const names = (pages: { tasks?: Task[] }[] | undefined) =>
  pages?.map(({ tasks = [] }) => tasks.map(({ name }) => name).join(""));
const pages = [{ tasks: [task("e", 5), task("d", 4)], nextPageToken: "t" }, { tasks: [task("b", 2, "5")] }];

test("a task that leaves a column, stays there or was never there needs no reading", () => {
  expect(names(moved(pages, task("d", 4, "2"), elsewhere))).toEqual(["e", "b"]);
  const stays = moved(pages, task("b", 2, "6"), here);
  expect(stays?.[1]?.tasks?.[0]?.status?.logSeq).toBe("6");
  expect(names(stays)).toEqual(["ed", "b"]);
  expect(moved(pages, task("x", 3), elsewhere)).toBe(pages);
  // An older record than the known one is not the present.
  expect(moved(pages, task("b", 2, "4"), elsewhere)).toBe(pages);
});

test("a task that enters has its place by its creation", () => {
  expect(names(moved(pages, task("f", 6), here))).toEqual(["fed", "b"]);
  expect(names(moved(pages, task("c", 3), here))).toEqual(["ed", "cb"]);
  expect(names(moved(pages, task("z", 1), here))).toEqual(["ed", "bz"]);
  expect(names(moved([{ tasks: [] }], task("a", 1), here))).toEqual(["a"]);
  // On a page that is not read yet.
  const part = [{ tasks: [task("e", 5)], nextPageToken: "t" }];
  expect(moved(part, task("a", 1), here)).toBe(part);
});

test("a column is read again if it is filtered, or has grown to twice its pages", () => {
  expect(moved(pages, task("f", 6), { isHere: true, isFiltered: true })).toBeUndefined();
  expect(names(moved(pages, task("d", 4, "2"), { isHere: false, isFiltered: true }))).toEqual(["e", "b"]);
  const many = (count: number) => [
    { tasks: Array.from({ length: count }, (_, index) => task(`${index}`, 1)) },
  ];
  expect(moved(many(199), task("f", 6), here)?.[0]?.tasks).toHaveLength(200);
  expect(moved(many(200), task("f", 6), here)).toBeUndefined();
});
