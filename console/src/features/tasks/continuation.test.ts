import { expect, test } from "vitest";
// What clients in Rust do is tested with the same table.
import table from "../../../../crates/proto/src/continuation.json?raw";
import type { Task } from "../../api/types";
import { continuationOf } from "./continuation";

type Case = { title: string; how: string; before: Task; prompt: string; after: Task };

const cases = (JSON.parse(table) as Case[]).filter((one) => one.how === "apart");

test.each(cases)("$title", ({ before, prompt, after }) => {
  const given = structuredClone(before);
  expect(continuationOf(before, prompt)).toEqual({ labels: {}, ...after });
  expect(before).toEqual(given);
});
