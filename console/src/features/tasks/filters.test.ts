import { expect, test } from "vitest";
import { filterOf, filters, isFiltered, searchOf } from "./filters";

test("labels are split at the first sign only", () => {
  const label = (label: string) => decodeURIComponent(filters({ label }).replace("?pageSize=100", ""));
  expect(label("a=b=c")).toBe("&filter.labels[a]=b=c");
  expect(label("team=web")).toBe("&filter.labels[team]=web");
  expect(label("")).toBe("");
});

test("a filter has what the address has, and no more", () => {
  expect(filterOf({ state: "QUEUED", agent: "a", label: "k=v=w", view: "board" })).toEqual({
    states: ["TASK_STATE_QUEUED"],
    agent: "a",
    labels: { k: "v=w" },
  });
  expect(filterOf({})).toEqual({});
});

test("a view is no filter", () => {
  expect([isFiltered({}), isFiltered({ view: "board", state: undefined })]).toEqual([false, false]);
  expect([isFiltered({ owner: "me" }), isFiltered({ minPriority: 0 })]).toEqual([true, true]);
});

test("a filter of every field is in the address and in the call", () => {
  const search = searchOf({
    state: " FAILED ",
    failure: "OVERLOAD",
    worker: "w",
    parent: "p",
    workflow: "f",
    thread: "t",
    minPriority: "0",
    maxPriority: 7,
    since: "2026-01-31",
    until: "2026-02-01",
    endedSince: "2026-01-31",
    endedUntil: "2026-02-01",
    minCost: "0.25",
    minAttempts: "2",
    other: "x",
  });
  expect(filterOf(search)).toEqual({
    states: ["TASK_STATE_FAILED"],
    failureClasses: ["FAILURE_CLASS_OVERLOAD"],
    worker: "w",
    parentTask: "p",
    workflow: "f",
    thread: "t",
    minPriority: 0,
    maxPriority: 7,
    createdAfter: "2026-01-31T00:00:00Z",
    createdBefore: "2026-02-01T00:00:00Z",
    endedAfter: "2026-01-31T00:00:00Z",
    endedBefore: "2026-02-01T00:00:00Z",
    minCostMicroUsd: "250000",
    minAttempts: 2,
  });
  const call = decodeURIComponent(filters(search));
  expect(call).toContain("filter.failureClasses=FAILURE_CLASS_OVERLOAD&");
  expect(call).toContain("filter.minPriority=0");
  const earlier = decodeURIComponent(filters(search, 100, { createdBefore: "2026-01-31T00:00:01Z" }));
  expect(earlier).toBe(
    call.replace("=2026-02-01T00:00:00Z&filter.ended", "=2026-01-31T00:00:01Z&filter.ended"),
  );
  // The address keeps what was chosen.
  expect(searchOf({ ...search })).toEqual(search);
});

test("what is no value of a filter is left out", () => {
  expect(searchOf({ minCost: "-1", minPriority: "x", since: "2026-02-50", state: 7, view: "other" })).toEqual(
    {
      state: "7",
    },
  );
});
