import { expect, test } from "vitest";
import { filters } from "./filters";

test("labels are split at the first sign only", () => {
  const label = (label: string) => decodeURIComponent(filters({ label }).replace("?pageSize=100", ""));
  expect(label("a=b=c")).toBe("&filter.labels[a]=b=c");
  expect(label("team=web")).toBe("&filter.labels[team]=web");
  expect(label("")).toBe("");
});
