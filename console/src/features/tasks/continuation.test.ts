import { expect, test } from "vitest";
import type { Task } from "../../api/types";
import { continuationOf } from "./continuation";

test("a task continues another one as it was set up, without what was its own", () => {
  const before: Task = {
    name: "namespaces/default/tasks/old",
    uid: "old",
    alias: "fix",
    priority: 3,
    labels: { team: "web", "rota.dev/cluster": "production", "rota.dev/replayed": "other" },
    spec: {
      title: "a fix",
      prompt: "Fix it.",
      target: { agent: "coder" },
      dependsOn: [{ task: "first" }],
      inputs: [{ name: "input/a" }],
      thread: "fixes",
      startTime: "2026-11-25T00:00:00Z",
      fork: true,
      limits: { timeout: "600s" },
      workspace: { mode: "WORKSPACE_MODE_KEEP", git: { url: "https://git.example/a.git", refFrom: "first" } },
    },
  };
  expect(continuationOf(before, "And now a test.")).toEqual({
    priority: 3,
    labels: { team: "web" },
    spec: {
      prompt: "And now a test.",
      continueFrom: "old",
      target: { agent: "coder" },
      limits: { timeout: "600s" },
      workspace: { mode: "WORKSPACE_MODE_KEEP", path: "old", git: { url: "https://git.example/a.git" } },
    },
  });
  expect(before.spec?.workspace?.git?.refFrom).toBe("first");
});

test("a kept directory with a name keeps it", () => {
  const workspace = { mode: "WORKSPACE_MODE_KEEP", path: "shared" } as const;
  expect(continuationOf({ uid: "old", spec: { workspace } }, "x").spec?.workspace?.path).toBe("shared");
  expect(continuationOf({ uid: "old", spec: {} }, "x")).toEqual({
    labels: {},
    spec: { prompt: "x", continueFrom: "old" },
  });
});
