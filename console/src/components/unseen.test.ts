import { expect, test } from "vitest";
import { isNewest, isWithin, Unseen } from "./unseen";

test("what a list lacks is counted once, until the list has it or it is deleted", () => {
  const unseen = new Unseen();
  expect(unseen.besides([])).toBeUndefined();
  expect([unseen.set("a", true), unseen.set("a", true), unseen.set("b", true)]).toEqual([true, false, true]);
  expect(unseen.besides([])).toBe("2");
  expect(unseen.besides([{ name: "b" }, { name: "c" }])).toBe("1");
  expect([unseen.set("b", false), unseen.set("b", false)]).toEqual([true, false]);
  expect(unseen.besides([])).toBe("1");
  unseen.reset();
  expect(unseen.besides([])).toBeUndefined();
});

test("of thousands only a part is kept, and that there may be more", () => {
  const unseen = new Unseen();
  const added = Array.from({ length: 5000 }, (_, index) => unseen.set(`${index}`, true));
  expect(added.filter(Boolean)).toHaveLength(1000);
  expect(unseen.besides([])).toBe("1000+");
  expect(unseen.besides([{ name: "7" }])).toBe("999+");
  unseen.reset([{ name: "7" }, { name: "8" }], true);
  expect(unseen.besides([{ name: "8" }])).toBe("1+");
  unseen.reset([{ name: "7" }]);
  expect(unseen.besides([])).toBe("1");
});

test("what is older than the first of a list is not new", () => {
  const listed = [{ createTime: "2026-01-01T00:00:01Z" }, { createTime: "2026-01-01T00:00:00Z" }];
  expect(isNewest({ createTime: "2026-01-01T00:00:00.9Z" }, listed)).toBe(false);
  // Of texts, one with a part of the second comes before one without it.
  expect(isNewest({ createTime: "2026-01-01T00:00:01.5Z" }, listed)).toBe(true);
  expect(isNewest({}, listed)).toBe(false);
  expect(isNewest({}, [])).toBe(true);
});

test("what is older than the last row belongs to a list only if that is complete", () => {
  const listed = [{ createTime: "2026-01-01T00:00:02Z" }, { createTime: "2026-01-01T00:00:01Z" }];
  const at = (createTime: string) =>
    [true, false].map((hasMore) => isWithin({ createTime }, listed, hasMore));
  expect(at("2026-01-01T00:00:03Z")).toEqual([true, true]);
  expect(at("2026-01-01T00:00:01.5Z")).toEqual([true, true]);
  expect(at("2026-01-01T00:00:00Z")).toEqual([false, true]);
  expect(isWithin({}, [], false)).toBe(true);
  expect(isWithin({ createTime: "2026-01-01T00:00:00Z" }, [], true)).toBe(true);
});
