import { expect, test } from "vitest";
import { filterOf, filters } from "./filters";

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
