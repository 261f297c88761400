import { expect, test } from "vitest";
// What clients in Rust do is tested with the same table.
import table from "../../../../crates/proto/src/continuation.json?raw";
import type { AttemptArtifacts, Task } from "../../api/types";
import { canBeContinued, continuationOf } from "./continuation";

type Case = { title: string; how: string; before: Task; prompt: string; after: Task };

const cases = (JSON.parse(table) as Case[]).filter((one) => one.how === "apart");

test.each(cases)("$title", ({ before, prompt, after }) => {
  const given = structuredClone(before);
  expect(continuationOf(before, prompt)).toEqual({ labels: {}, ...after });
  expect(before).toEqual(given);
});

test("only a usable checkpoint can be continued", () => {
  const left = (list: AttemptArtifacts["list"]) =>
    canBeContinued({ attempts: [{ attempt: 1, list: list ?? {} }] });
  expect(left({ checkpoint: { conversation: "c" } })).toBe(true);
  expect(left({ checkpoint: { unusable: true } })).toBe(false);
  expect(left({})).toBe(false);
  expect(canBeContinued({})).toBe(false);
});
