import { expect, test } from "vitest";
import { ApiError } from "../../api/client";
import type { TaskSpec } from "../../api/types";
import { readAs } from "./manifest";
import { checkOf, lineOfError } from "./useChecked";

const { signal } = new AbortController();
const TEXT = "prompt: x\nretry:\n  maxAttempts: 0\n";

function check(answer: () => Promise<unknown>) {
  const asked: TaskSpec[] = [];
  const ask = (spec: TaskSpec) => {
    asked.push(spec);
    return answer();
  };
  return { asked, kind: "Task", read: (text: string) => readAs<TaskSpec>(text, "Task", "prompt"), ask };
}

test("what the server accepts has a specification", async () => {
  const all = check(async () => ({}));
  const spec = { prompt: "x", retry: { maxAttempts: 0 } };
  expect(await checkOf(TEXT, all, signal)).toEqual({ text: TEXT, spec });
  expect(all.asked).toEqual([spec]);
});

test("what is no YAML is not sent to the server", async () => {
  const all = check(async () => ({}));
  const found = await checkOf("prompt: [", all, signal);
  expect(found.spec).toBeUndefined();
  expect(found.line).toBe(1);
  expect(all.asked).toEqual([]);
});

test("what the server refuses has the line of the field that it names", async () => {
  const error = new ApiError(3, "task.spec.retry.max_attempts: must be from 1 to 100");
  const found = await checkOf(
    TEXT,
    check(() => Promise.reject(error)),
    signal,
  );
  expect(found).toEqual({ text: TEXT, error, line: 3 });
  const hint = new ApiError(3, "invalid", "", "task.spec.retry.max_attempts: must be from 1 to 100");
  expect(lineOfError(TEXT, "Task", hint)).toBe(3);
  expect(lineOfError(TEXT, "Workflow", hint)).toBeUndefined();
  expect(lineOfError(TEXT, "Task", new Error("no connection"))).toBeUndefined();
});
