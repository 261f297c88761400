import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { signIn, signOut } from "./api/token";
import { hasSecrets, keepDraft, keptDraft, removeDrafts } from "./drafts";

/** Stubs the storage of a tab, in which a value has room for a number of characters. */
function stubStorage(room = 1000) {
  const values = new Map<string, string>();
  vi.stubGlobal("sessionStorage", {
    get length() {
      return values.size;
    },
    key: (at: number) => [...values.keys()][at] ?? null,
    getItem: (key: string) => values.get(key) ?? null,
    setItem: (key: string, value: string) => {
      if (value.length > room) {
        throw new DOMException("full", "QuotaExceededError");
      }
      values.set(key, value);
    },
    removeItem: (key: string) => values.delete(key),
  });
  return values;
}

beforeEach(() => signIn("person ada"));

afterEach(() => {
  signOut();
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

test("each thing has a draft of its own, until it is discarded", () => {
  stubStorage();
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
  stubStorage(100);
  expect(keepDraft(undefined, "short")).toBe(true);
  expect(keepDraft(undefined, "longer".repeat(100))).toBe(false);
  expect(keptDraft(undefined)).toBe("short");
});

test("a draft is only for the person who has typed it", () => {
  const values = stubStorage();
  keepDraft(undefined, "of ada");
  signIn("person bob");
  expect(keptDraft(undefined)).toBeNull();
  signIn("person ada");
  expect([keptDraft(undefined), values.size]).toEqual([null, 0]);
});

test("what is no draft of this version is removed", () => {
  const values = stubStorage();
  for (const other of ["title: x", "null", "1", '"text"', '{"text": "x"}']) {
    values.set("rota.draft", other);
    expect([keptDraft(undefined), values.size]).toEqual([null, 0]);
  }
});

test("drafts are removed, all or those of others, and nothing else", () => {
  const values = stubStorage();
  keepDraft(undefined, "of ada");
  signIn("person bob");
  keepDraft("namespaces/n/tasks/1", "of bob");
  for (const other of ["rota.namespace", "rota.drafts", "rota.draft@/below/"]) {
    values.set(other, "of something else");
  }
  removeDrafts("person bob");
  expect([values.has("rota.draft"), keptDraft("namespaces/n/tasks/1")]).toEqual([false, "of bob"]);
  removeDrafts();
  expect([...values.keys()]).toEqual(["rota.namespace", "rota.drafts", "rota.draft@/below/"]);
});

test("the oldest draft makes room for the twenty-first", () => {
  stubStorage();
  const clock = vi.spyOn(Date, "now");
  const keep = (number: number, time: number) => {
    clock.mockReturnValue(time);
    keepDraft(`${number}`, `text ${number}`);
  };
  for (let number = 1; number <= 20; number += 1) {
    keep(number, number);
  }
  // A change makes a draft the newest one.
  keep(1, 21);
  keep(21, 22);
  const kept = Array.from({ length: 21 }, (_, at) => at + 1).filter((number) => keptDraft(`${number}`));
  expect(kept).toEqual([1, ...Array.from({ length: 19 }, (_, at) => at + 3)]);
});

test("a text with secrets is not kept, and neither is what was typed before them", () => {
  const values = stubStorage();
  keepDraft(undefined, "prompt: x\nAPI_KEY: hush");
  expect(keepDraft(undefined, "prompt: x\nsecrets:\n  API_KEY: hush")).toBe(false);
  expect(values.size).toBe(0);
});

test("secrets are found in each form of YAML, also while they are typed", () => {
  const found = [
    "prompt: x\nsecrets: {API_KEY: hush}",
    "kind: Task\nspec:\n  secrets:\n    API_KEY: hush",
    "spec: {prompt: x, secrets: {API_KEY: hu",
    '{"spec":{"secrets":{"API_KEY":"hush"}}}',
    "'secrets' : {API_KEY: hush}",
    "? secrets\n: {API_KEY: hush}",
    "steps:\n  - secrets: {API_KEY: hush}",
    "prompt: [\nsecrets:",
  ];
  expect(found.filter((text) => !hasSecrets(text))).toEqual([]);
  const none = ["prompt: keep all secrets: they matter", "agentSecrets: {names: [A]}", "secretNames: [A]"];
  expect(none.filter(hasSecrets)).toEqual([]);
});
