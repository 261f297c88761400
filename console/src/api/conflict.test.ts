import { expect, test } from "vitest";
import { ApiError } from "./client";
import { Conflict, changeAsSeen, changeOfLatest, ifMatch } from "./conflict";

interface Rec {
  etag?: string;
  priority: number;
  labels?: Record<string, string>;
}

const mismatch = () => new ApiError(10, "the record has changed since it was read", "ETAG_MISMATCH");

/** A server with one record, whose etag counts its changes. */
function server(record: Rec) {
  const sent: (string | undefined)[] = [];
  const read = async () => ({ ...record });
  const other = (change: Partial<Rec>) =>
    Object.assign(record, change, { etag: `${Number(record.etag) + 1}` });
  const send = (priority: number) => async (etag: string | undefined) => {
    sent.push(etag);
    if (etag !== undefined && etag !== record.etag) {
      throw mismatch();
    }
    other({ priority });
  };
  const set = (seen: Rec | undefined, priority: number) =>
    changeAsSeen<Rec>({
      what: "the task x",
      seen,
      read,
      values: (one) => ({ priority: String(one?.priority) }),
      mine: { priority: String(priority) },
      send: send(priority),
    });
  return { record, sent, read, other, set };
}

test("a change is sent with the etag of what was seen", async () => {
  const { record, sent, read, set } = server({ etag: "1", priority: 5 });
  await set(await read(), 8);
  expect([record.priority, sent]).toEqual([8, ["1"]]);
  expect(ifMatch("1")).toEqual({ "If-Match": '"1"' });
  expect(ifMatch(undefined)).toEqual({});
});

test("what someone else has changed is shown, and overwritten only on demand", async () => {
  const { record, read, other, set } = server({ etag: "1", priority: 5 });
  const seen = await read();
  other({ priority: 9 });
  const conflict = await set(seen, 8).catch((error: unknown) => error as Conflict);
  if (!(conflict instanceof Conflict)) {
    throw new Error("it was saved");
  }
  expect([record.priority, conflict.before, conflict.theirs, conflict.mine]).toEqual([
    9,
    { priority: "5" },
    { priority: "9" },
    { priority: "8" },
  ]);
  expect(conflict.message).toContain("the task x was changed by someone else meanwhile: priority is 9 now");
  // Once more before the person has decided.
  other({ priority: 10 });
  const again = await conflict.overwrite().catch((error: unknown) => error as Conflict);
  if (!(again instanceof Conflict)) {
    throw new Error("it was saved");
  }
  expect([record.priority, again.theirs]).toEqual([10, { priority: "10" }]);
  await again.overwrite();
  expect(record.priority).toBe(8);
});

test("changes of other values are no conflict, and neither is the same change", async () => {
  const { record, sent, read, other, set } = server({ etag: "1", priority: 5 });
  const seen = await read();
  other({ labels: { a: "b" } });
  await set(seen, 8);
  expect([record.priority, record.labels, sent]).toEqual([8, { a: "b" }, ["1", "2"]]);
  await set(seen, 8);
  expect(sent).toEqual(["1", "2", "1"]);
});

test("a record without an etag is compared before it is changed", async () => {
  const { record, sent, set } = server({ priority: 9 });
  await expect(set({ priority: 5 }, 8)).rejects.toBeInstanceOf(Conflict);
  expect([record.priority, sent]).toEqual([9, []]);
  await set({ priority: 9 }, 8);
  expect([record.priority, sent]).toEqual([8, [undefined]]);
});

test("other errors are passed on, and endless changes end", async () => {
  const failing = (error: unknown) =>
    changeAsSeen<Rec>({
      what: "it",
      seen: { etag: "1", priority: 5 },
      read: async () => ({ etag: "2", priority: 5 }),
      values: () => ({ priority: "5" }),
      mine: { priority: "8" },
      send: () => Promise.reject(error),
    });
  await expect(failing(new ApiError(3, "no"))).rejects.toThrow("no");
  await expect(failing(mismatch())).rejects.toThrow("changes too often");
});

test("a change of the latest keeps what others have added", async () => {
  const { record, read, other } = server({ etag: "1", priority: 5, labels: { a: "1" } });
  const seen = await read();
  other({ labels: { a: "1", b: "2" } });
  await changeOfLatest(seen, read, async (known, headers) => {
    if (headers["If-Match"] !== `"${record.etag}"`) {
      throw mismatch();
    }
    other({ labels: { ...known.labels, c: "3" } });
  });
  expect(record.labels).toEqual({ a: "1", b: "2", c: "3" });
  const refused = changeOfLatest(seen, read, () => Promise.reject(mismatch()));
  await expect(refused).rejects.toThrow("has changed since");
});
