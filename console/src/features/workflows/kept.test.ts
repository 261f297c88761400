import { afterEach, expect, test, vi } from "vitest";
import { keepDraft, keptDraft } from "./kept";

/** A storage with room for a number of characters. */
function stubStorage(room: number) {
  const values = new Map<string, string>();
  vi.stubGlobal("sessionStorage", {
    getItem: (key: string) => values.get(key) ?? null,
    setItem: (key: string, value: string) => {
      if (value.length > room) {
        throw new DOMException("full", "QuotaExceededError");
      }
      values.set(key, value);
    },
    removeItem: (key: string) => values.delete(key),
  });
}

afterEach(() => vi.unstubAllGlobals());

test("each thing has a draft of its own, until it is discarded", () => {
  stubStorage(100);
  expect(keepDraft(undefined, "new")).toBe(true);
  expect(keepDraft("namespaces/n/tasks/1", "changed")).toBe(true);
  expect([
    keptDraft(undefined),
    keptDraft("namespaces/n/tasks/1"),
    keptDraft("namespaces/n/tasks/2"),
  ]).toEqual(["new", "changed", null]);
  expect(keepDraft("namespaces/n/tasks/1", undefined)).toBe(true);
  expect([keptDraft(undefined), keptDraft("namespaces/n/tasks/1")]).toEqual(["new", null]);
});

test("a draft without room is reported, and the last one that had room stays", () => {
  stubStorage(5);
  expect(keepDraft(undefined, "short")).toBe(true);
  expect(keepDraft(undefined, "longer")).toBe(false);
  expect(keptDraft(undefined)).toBe("short");
});
