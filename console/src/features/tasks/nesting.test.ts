import { expect, test } from "vitest";
import { Nesting } from "./nesting";

test("calls of subagents are below the call that started them", () => {
  const nesting = new Nesting();
  expect(nesting.add({ callId: "a" })).toBe(0);
  expect(nesting.add({ callId: "b", parentCallId: "a" })).toBe(1);
  expect(nesting.add({ callId: "c", parentCallId: "b" })).toBe(2);
  expect(nesting.add({ callId: "d", parentCallId: "a" })).toBe(1);
  expect(["a", "b", "c", "d", "other"].map((one) => nesting.of(one))).toEqual([0, 1, 2, 1, 0]);
});

test("a call whose parent was left out is nested nevertheless", () => {
  expect(new Nesting().add({ callId: "b", parentCallId: "lost" })).toBe(1);
});

test("what is remembered, and how deep it is, is bounded", () => {
  const nesting = new Nesting();
  nesting.add({ callId: "0", parentCallId: "first" });
  for (let call = 1; call <= 10_000; call += 1) {
    nesting.add({ callId: `${call}`, parentCallId: `${call - 1}` });
  }
  expect(nesting.of("0")).toBe(0);
  expect(nesting.of("10000")).toBe(6);
});
