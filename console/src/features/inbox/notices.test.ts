import { expect, test } from "vitest";
import { knownKeys, newNotices, noticesOf } from "./notices";

const task = (id: string, ...requests: string[]) => ({
  name: `namespaces/n/tasks/${id}`,
  spec: { title: `task ${id}` },
  status: { pendingInput: requests.map((requestId) => ({ requestId, prompt: "Which\u202eway?" })) },
});

test("each question and approval is a notice, with hidden characters named", () => {
  const workflow = { name: "namespaces/n/workflows/w", alias: "release" };
  const steps = [{ name: "look", round: 1, prompt: "Good?" }];
  expect(noticesOf([task("1", "a", "b")], [{ workflow, steps }])).toEqual([
    { key: "namespaces/n/tasks/1 a", title: "task 1", text: "Which[U+202E]way?", path: "/tasks/n/1" },
    { key: "namespaces/n/tasks/1 b", title: "task 1", text: "Which[U+202E]way?", path: "/tasks/n/1" },
    { key: "namespaces/n/workflows/w look 1", title: "release", text: "Good?", path: "/workflows/n/w" },
  ]);
});

test("a task that keeps failing is a notice, next to its questions", () => {
  const failing = task("1", "a");
  const attention = { failedAttempts: 3, lastFailure: { message: "no\u202eluck" } };
  const all = noticesOf([{ ...failing, status: { ...failing.status, attention } }, task("2")], []);
  expect(all.slice(1)).toEqual([
    {
      key: "namespaces/n/tasks/1 attention",
      title: "task 1",
      text: "It keeps failing: no[U+202E]luck",
      path: "/tasks/n/1",
    },
  ]);
});

test("work that has not passed its checks is a notice, until the task is replayed", () => {
  const failure = { class: "FAILURE_CLASS_CHECKS" as const, message: "no\u202etests" };
  const failed = { ...task("1"), status: { state: "TASK_STATE_FAILED" as const, failure } };
  const others = [
    { ...failed, labels: { "rota.dev/replayed": "never" } },
    { ...failed, step: { workflow: "w" } },
    { ...failed, status: { ...failed.status, state: "TASK_STATE_QUEUED" as const } },
    { ...failed, status: { ...failed.status, failure: { class: "FAILURE_CLASS_AGENT" as const } } },
  ];
  expect(noticesOf([failed, ...others], [])).toEqual([
    { key: "namespaces/n/tasks/1 checks", title: "task 1", text: "no[U+202E]tests", path: "/tasks/n/1" },
  ]);
});

test("only what is new is shown, and a lot of it together", () => {
  const all = noticesOf([task("1", "a"), task("2", "b")], []);
  expect(newNotices(new Set([all[0]?.key ?? ""]), all)).toEqual([all[1]]);
  expect(newNotices(new Set(all.map(({ key }) => key)), all)).toEqual([]);
  const many = noticesOf([task("1", "a", "b", "c", "d")], []);
  expect(newNotices(new Set(), many)).toMatchObject([{ text: "4 wait for a person", path: "/inbox" }]);
});

test("what could not be read for a moment is not new afterwards", () => {
  const all = noticesOf([task("1", "a"), task("2", "b")], []);
  const known = knownKeys(knownKeys([], all), all.slice(0, 1));
  expect(newNotices(known, all)).toEqual([]);
});
