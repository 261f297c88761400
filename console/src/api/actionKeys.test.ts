import { expect, test } from "vitest";
import { ActionKeys } from "./actionKeys";
import { ApiError, Code } from "./client";

class DoneError extends ApiError {
  override readonly isDone = true;
}

const lost = new ApiError(Code.UNAVAILABLE, "the control plane cannot be reached");
const refused = new ApiError(Code.PERMISSION_DENIED, "viewers may not");
const done = new DoneError(Code.FAILED_PRECONDITION, "it was created as well");

/** Runs an action once for each outcome, and returns the keys that it gets, as numbers in the order of their first use. */
async function keysOf(...outcomes: (Error | undefined)[]): Promise<number[]> {
  const keys = new ActionKeys();
  const used: string[] = [];
  for (const error of outcomes) {
    const call = keys.during("Retry", async (key) => {
      used.push(key);
      if (error) {
        throw error;
      }
    });
    await call.catch(() => {});
  }
  return used.map((key) => [...new Set(used)].indexOf(key));
}

test("an action has the same key until its outcome is certain", async () => {
  expect(await keysOf(lost, lost, undefined, undefined)).toEqual([0, 0, 0, 1]);
  expect(await keysOf(new Error("no answer of the API"), undefined)).toEqual([0, 0]);
  expect(await keysOf(done, undefined)).toEqual([0, 1]);
  expect(await keysOf(lost, done, undefined)).toEqual([0, 0, 1]);
});

test("a refused action has another key the next time, unless an earlier call may have been made", async () => {
  expect(await keysOf(refused, undefined)).toEqual([0, 1]);
  expect(await keysOf(lost, refused, undefined)).toEqual([0, 0, 0]);
});

test("each action has its own key", async () => {
  const keys = new ActionKeys();
  const used = new Set<string>();
  for (const action of ["Retry one", "Retry two"]) {
    const call = keys.during(action, async (key) => {
      used.add(key);
      throw lost;
    });
    await expect(call).rejects.toBe(lost);
  }
  expect(used.size).toBe(2);
});
