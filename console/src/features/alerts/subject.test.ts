import { expect, test } from "vitest";
import { subjectOf } from "./subject";

test("each subject has the page that shows it", () => {
  expect(subjectOf("namespaces/n/agents/a")).toEqual({ page: "/agents", name: "a" });
  expect(subjectOf("namespaces/n/workers/w")).toEqual({ page: "/agents", name: "w" });
  expect(subjectOf("namespaces/n/backends/api.example")).toEqual({ page: "/system", name: "api.example" });
  expect(subjectOf("namespaces/n")).toEqual({ page: "/costs", name: "namespace n" });
  expect(subjectOf("backgroundTasks/prune")).toEqual({ page: "/system", name: "prune" });
  expect(subjectOf("")).toEqual({ page: "/system", name: "" });
});
