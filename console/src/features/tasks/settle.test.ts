import { afterEach, expect, test, vi } from "vitest";
import { ActionKeys } from "../../api/actionKeys";
import { ApiError, Code } from "../../api/client";
import type { Task } from "../../api/types";
import { createAndSettle, DISMISSED, fateOf, repeatable, SettledError, settle } from "./settle";

const LABEL = "rota.dev/replayed";
const failed: Task = {
  name: "namespaces/n/tasks/u",
  uid: "u",
  etag: "1",
  labels: { team: "shop" },
  status: { state: "TASK_STATE_FAILED" },
};

afterEach(() => {
  vi.unstubAllGlobals();
});

/** Answers the calls as a server that has one task, and refuses changes of an earlier state of it. Some answers of changes are lost. */
function serve(task: Task, lost = 0): Task {
  const record = { ...task };
  let left = lost;
  vi.stubGlobal("fetch", async (_address: string, { method, headers, body }: RequestInit) => {
    if (method !== "PATCH") {
      return Response.json(record);
    }
    if (new Headers(headers).get("If-Match") !== `"${record.etag}"`) {
      const details = [{ reason: "ETAG_MISMATCH" }];
      return Response.json({ code: 10, message: "it has changed", details }, { status: 409 });
    }
    record.labels = (JSON.parse(String(body)) as Task).labels ?? {};
    record.etag = `${Number(record.etag) + 1}`;
    if (left > 0) {
      left -= 1;
      throw new TypeError("the connection is lost");
    }
    return Response.json(record);
  });
  return record;
}

const settledByOther = (by: string): Task => ({
  ...failed,
  etag: "2",
  labels: { team: "shop", [LABEL]: by },
});

test("a label of another person is kept", async () => {
  const record = serve(settledByOther("copy"));
  await expect(settle(failed, DISMISSED)).rejects.toThrow("was run again as copy meanwhile: that is kept");
  await expect(settle(failed, { uid: "second" })).rejects.toThrow("second was created as well");
  expect(record.labels).toEqual({ team: "shop", [LABEL]: "copy" });
  // An answer was lost, or both have dismissed it.
  await settle(failed, { uid: "copy" });
});

test("what another person has settled is not run again", async () => {
  serve(settledByOther("never"));
  const create = vi.fn(async () => ({ uid: "second" }));
  await expect(createAndSettle(failed, "key", create)).rejects.toThrow(
    "was dismissed meanwhile: no second task was created",
  );
  expect(create).not.toHaveBeenCalled();
});

test("only what no other person has settled is repeated", async () => {
  serve(settledByOther("never"));
  const settled = await createAndSettle(failed, "key", vi.fn()).catch((why: unknown) => why);
  const both = await settle(failed, { uid: "second" }).catch((why: unknown) => why);
  const offline = { ...failed, name: "namespaces/n/tasks/offline" };
  const all = [
    { one: failed, why: settled },
    { one: failed, why: both },
    { one: offline, why: new ApiError(Code.UNAVAILABLE, "the connection is lost") },
  ];
  expect(repeatable(all)).toEqual([offline]);
});

test("a failed task that is run again is settled, and others are left as they are", async () => {
  // Something else of it has changed.
  const record = serve({ ...failed, etag: "2" });
  await createAndSettle(failed, "key", async () => ({ uid: "copy" }));
  expect(record.labels).toEqual({ team: "shop", [LABEL]: "copy" });
  const ended = { ...failed, status: { state: "TASK_STATE_CANCELLED" as const } };
  const left = serve(ended);
  expect(await createAndSettle(ended, "key", async () => ({ uid: "other" }))).toEqual({ uid: "other" });
  expect(left.labels).toEqual({ team: "shop" });
});

test("a task that a person has seen settled is run again on purpose", async () => {
  const record = serve(settledByOther("copy"));
  const create = vi.fn(async () => ({ uid: "second" }));
  // It was dismissed when it was seen, or had not even failed.
  const running = { ...failed, status: { state: "TASK_STATE_RUNNING" as const } };
  for (const seen of [settledByOther("never"), running]) {
    await expect(createAndSettle(seen, "key", create)).rejects.toThrow("was run again as copy meanwhile");
  }
  expect(create).not.toHaveBeenCalled();
  expect(await createAndSettle(settledByOther("copy"), "key", create)).toEqual({ uid: "second" });
  expect(record.labels).toEqual({ team: "shop", [LABEL]: "copy" });
});

test("a task restored before its retry is settled", async () => {
  // The person has seen it dismissed.
  const record = serve(failed);
  await createAndSettle(settledByOther("never"), "restored", async () => ({ uid: "copy" }));
  expect(record.labels).toEqual({ team: "shop", [LABEL]: "copy" });
});

test("a refusal has the task as it is now", async () => {
  serve(settledByOther("never"));
  const refusal = await createAndSettle(failed, "key", vi.fn()).catch((why: unknown) => why);
  if (!(refusal instanceof SettledError)) {
    throw refusal;
  }
  expect(fateOf(refusal.task)).toBe("dismissed");
  const create = vi.fn(async () => ({ uid: "second" }));
  expect(await createAndSettle(refusal.task, "key", create)).toEqual({ uid: "second" });
});

/** Creates one task for each key, as a server does: `second`, `third` and so on. `meanwhile` is what happens before it has answered. */
function creator(meanwhile: () => void) {
  const names = ["second", "third"];
  const made = new Map<string, Task>();
  return async (key: string) => {
    meanwhile();
    const task = made.get(key) ?? { uid: names[made.size] ?? "" };
    made.set(key, task);
    return task;
  };
}

test("a copy that was created as well is opened by a repetition", async () => {
  const record = serve(failed);
  const create = creator(() => Object.assign(record, settledByOther("copy")));
  const refusal = await createAndSettle(failed, "both", () => create("both")).catch((why: unknown) => why);
  if (!(refusal instanceof SettledError)) {
    throw refusal;
  }
  expect(refusal.message).toContain("second was created as well");
  expect(await createAndSettle(refusal.task, "both", () => create("both"))).toEqual({ uid: "second" });
  expect(record.labels).toEqual({ team: "shop", [LABEL]: "copy" });
});

test("after a copy that was created as well, Retry creates another one", async () => {
  const record = serve(failed);
  let calls = 0;
  const create = creator(() => {
    calls += 1;
    if (calls === 1) {
      throw new ApiError(Code.UNAVAILABLE, "the connection is lost");
    }
    Object.assign(record, settledByOther("copy"));
  });
  const keys = new ActionKeys();
  const retry = (seen: Task) => keys.during("Retry", (key) => createAndSettle(seen, key, () => create(key)));
  await expect(retry(failed)).rejects.toThrow("the connection is lost");
  await expect(retry(failed)).rejects.toThrow("second was created as well");
  expect(await retry(settledByOther("copy"))).toEqual({ uid: "third" });
});

test("a copy whose label is refused is not created twice by Retry", async () => {
  const record = serve(failed);
  const answer = fetch;
  vi.stubGlobal("fetch", async (address: string, init: RequestInit) =>
    init.method === "PATCH"
      ? Response.json({ code: Code.UNAUTHENTICATED, message: "the session has ended" }, { status: 401 })
      : answer(address, init),
  );
  const create = creator(() => {});
  const keys = new ActionKeys();
  const retry = () => keys.during("Retry", (key) => createAndSettle(failed, key, () => create(key)));
  await expect(retry()).rejects.toThrow("second was created, but not recorded: the session has ended");
  vi.stubGlobal("fetch", answer);
  expect(await retry()).toEqual({ uid: "second" });
  expect(record.labels).toEqual({ team: "shop", [LABEL]: "second" });
});

test("the copy of a task that was deleted meanwhile is opened", async () => {
  serve(failed);
  const answer = fetch;
  vi.stubGlobal("fetch", async (address: string, init: RequestInit) =>
    init.method === "PATCH"
      ? Response.json({ code: Code.NOT_FOUND, message: "there is no such task" }, { status: 404 })
      : answer(address, init),
  );
  expect(await createAndSettle(failed, "deleted", async () => ({ uid: "copy" }))).toEqual({ uid: "copy" });
});

test("a call repeated after a lost answer returns its own copy", async () => {
  const record = serve(failed, 1);
  const create = vi.fn(async () => ({ uid: "copy" }));
  await expect(createAndSettle(failed, "lost", create)).rejects.toThrow("cannot be reached");
  expect(await createAndSettle(failed, "lost", create)).toEqual({ uid: "copy" });
  expect(create).toHaveBeenCalledTimes(1);
  expect(record.labels).toEqual({ team: "shop", [LABEL]: "copy" });
  // Another specification would be a second run.
  await expect(createAndSettle(failed, "other", create)).rejects.toThrow("was run again as copy meanwhile");
});
