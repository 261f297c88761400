import { expect, test } from "vitest";
import type { Task } from "../../api/types";
import { asRead, moved, type Page } from "./column";

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
const read = (tasks: Task[], nextPageToken?: string): Page =>
  asRead({ tasks, ...(nextPageToken && { nextPageToken }) }, () => true);
const pages = [read([task("e", 5), task("d", 4)], "t"), read([task("b", 2, "5")])];

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
  const part = [read([task("e", 5)], "t")];
  expect(moved(part, task("a", 1), here)).toBe(part);
});

test("a task that is created after the token of a column has its place also without the cards around it", () => {
  const before = [read([task("f", 6), task("e", 5), task("c", 3)], "t")];
  const left = moved(before, task("c", 3, "2"), elsewhere) ?? [];
  expect(names(left)).toEqual(["fe"]);
  expect(names(moved(left, task("d", 4), here))).toEqual(["fed"]);
  expect(moved(left, task("b", 2), here)).toBe(left);
  // At the same time: only the server knows on which side of the token.
  expect(moved(left, task("x", 3), here)).toBeUndefined();
  // One that has left while the page was read.
  const during = [
    asRead({ tasks: [task("e", 5), task("c", 3)], nextPageToken: "t" }, (one) => one.name !== "c"),
  ];
  expect(names(during)).toEqual(["e"]);
  expect(names(moved(during, task("d", 4), here))).toEqual(["ed"]);
});

test("a column with further tasks is read again once it has lost half of its cards", () => {
  const many = (token?: string) => [
    read(
      Array.from({ length: 4 }, (_, index) => task(`${index}`, 1)),
      token,
    ),
  ];
  const drain = (pages: Page[], count: number) =>
    Array.from({ length: count }).reduce<Page[] | undefined>(
      (before, _, index) => before && moved(before, task(`${index}`, 1, "2"), elsewhere),
      pages,
    );
  expect(names(drain(many("t"), 2))).toEqual(["23"]);
  expect(drain(many("t"), 3)).toBeUndefined();
  // There is nothing to fill it up with.
  expect(names(drain(many(), 4))).toEqual([""]);
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
