import { expect, test } from "vitest";
import { pageOf } from "./page";

test("hits are tasks with what was found of them", () => {
  const hits = [
    { task: { name: "namespaces/n/tasks/1" }, snippet: "a needle" },
    { task: { name: "namespaces/n/tasks/2" } },
  ];
  expect(pageOf({ hits, nextPageToken: "t", revision: "9", indexedRevision: "7" })).toEqual({
    tasks: [{ name: "namespaces/n/tasks/1" }, { name: "namespaces/n/tasks/2" }],
    snippets: { "namespaces/n/tasks/1": "a needle", "namespaces/n/tasks/2": "" },
    behind: 2,
    nextPageToken: "t",
  });
  expect(pageOf({}).tasks).toEqual([]);
});
