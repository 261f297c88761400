import { expect, test } from "vitest";
import { counted, createdAt, dollars, id, isIn, isName, isUuid, placeOf, query, span, word } from "./format";

test("names and words", () => {
  expect(id("namespaces/default/tasks/hello")).toBe("hello");
  expect(id(undefined)).toBe("");
  expect(word("TASK_STATE_INPUT_REQUIRED", "TASK_STATE_")).toBe("input required");
});

test("the address of a page has the namespace and the id of its resource", () => {
  expect(placeOf("namespaces/team/tasks/hello")).toEqual({ namespace: "team", id: "hello" });
  expect(placeOf(undefined)).toEqual({ namespace: "", id: "" });
});

test("names and ids are no paths", () => {
  const uuid = "0198b6a2-6c1e-7f5e-9d3a-5f2d8c1b7e40";
  for (const text of ["nightly", "build.2-x", uuid]) {
    expect(isName(text)).toBe(true);
  }
  for (const text of [
    "",
    ".",
    "..",
    `../../other/tasks/${uuid}`,
    "a/b",
    "a\\b",
    "a?b",
    "a#b",
    "a%2fb",
    `${uuid}\n`,
  ]) {
    expect([isName(text), isUuid(text)]).toEqual([false, false]);
  }
  expect([isUuid(uuid), isUuid("nightly")]).toEqual([true, false]);
});

test("creation times are compared as times, of which the texts may have parts of a second", () => {
  expect(createdAt({ createTime: "1970-01-01T00:00:01Z" })).toBe(1000);
  expect(createdAt({ createTime: "1970-01-01T00:00:01.5Z" })).toBe(1500);
  expect([createdAt({}), createdAt(undefined)]).toEqual([Number.NaN, Number.NaN]);
});

test("a resource is in one namespace, and not in those whose names begin alike", () => {
  expect(isIn("team", "namespaces/team/tasks/1")).toBe(true);
  expect(isIn("team", "namespaces/team-two/tasks/1")).toBe(false);
  expect(isIn("team", undefined)).toBe(false);
});

test("numbers of things", () => {
  expect([0, 1, 2].map((count) => counted(count, "task"))).toEqual(["0 tasks", "1 task", "2 tasks"]);
  expect(counted(1, "attempt has", "attempts have")).toBe("1 attempt has");
  expect(counted("3", "attempt has", "attempts have")).toBe("3 attempts have");
});

test("times and money", () => {
  expect(span(1400)).toBe("1 s");
  expect(span(-5)).toBe("0 s");
  expect(span(125_000)).toBe("2 min");
  expect(span(3 * 3600_000)).toBe("3 h");
  expect(span(72 * 3600_000)).toBe("3 d");
  expect(dollars("12345")).toBe("$0.012");
  expect(dollars(2_500_000)).toBe("$2.50");
  expect(dollars(undefined)).toBe("");
});

test("queries leave empty values out", () => {
  expect(query({ a: "", b: undefined, c: ["x", "y"], d: 5 })).toBe("?c=x&c=y&d=5");
  expect(query({})).toBe("");
});
