import { expect, test } from "vitest";
import { ActionKeys } from "./actionKeys";
import { ApiError, Code } from "./client";

class DoneError extends ApiError {
  override readonly isDone = true;
}

const lost = new ApiError(Code.UNAVAILABLE, "the control plane cannot be reached");
const refused = new ApiError(Code.PERMISSION_DENIED, "viewers may not");
const conflict = new ApiError(6, "the key belongs to another task", "IDEMPOTENCY_KEY_CONFLICT");
const expired = new ApiError(Code.FAILED_PRECONDITION, "the task was removed", "IDEMPOTENCY_KEY_EXPIRED");
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

test("an action whose key belongs to an earlier call has another key the next time", async () => {
  expect(await keysOf(lost, conflict, undefined)).toEqual([0, 0, 1]);
  expect(await keysOf(lost, expired, undefined)).toEqual([0, 0, 1]);
});

/** Begins an action, whose call lasts until `end` is called, with its error if it fails. */
function begin(keys: ActionKeys) {
  let used = "";
  let settle: (error?: Error) => void = () => {};
  const call = keys.during("Retry", (key) => {
    used = key;
    return new Promise<void>((resolve, reject) => {
      settle = (error) => (error ? reject(error) : resolve());
    });
  });
  const end = async (error?: Error) => {
    settle(error);
    await call.catch(() => {});
  };
  return { used, end };
}

test("an action that is repeated before its end has the same key", async () => {
  const keys = new ActionKeys();
  const first = begin(keys);
  const second = begin(keys);
  expect(second.used).toBe(first.used);
  await second.end(refused);
  const third = begin(keys);
  expect(third.used).toBe(first.used);
  await first.end();
  const next = begin(keys);
  expect(next.used).not.toBe(first.used);
  // What ends later does not end the next one.
  await third.end();
  expect(begin(keys).used).toBe(next.used);
});

test("a lost call keeps its key after the refusal of another one", async () => {
  const keys = new ActionKeys();
  const first = begin(keys);
  const second = begin(keys);
  await first.end(refused);
  await second.end(lost);
  expect(begin(keys).used).toBe(first.used);
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
