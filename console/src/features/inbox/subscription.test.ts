import { expect, test } from "vitest";
import { bytesOf, subscribed } from "./subscription";

const json = { endpoint: "https://push.example/1", keys: { p256dh: "key", auth: "secret" } };
const request = { endpoint: "https://push.example/1", p256dh: "key", auth: "secret" };

/** A browser that is subscribed with a key, or not. */
function browser(key?: string) {
  const done: unknown[] = [];
  const subscription = {
    options: { applicationServerKey: key === undefined ? null : bytesOf(key).buffer },
    toJSON: () => json,
    unsubscribe: async () => done.push("unsubscribe"),
  } as unknown as PushSubscription;
  const manager = {
    getSubscription: async () => (key === undefined ? null : subscription),
    subscribe: async (options?: PushSubscriptionOptionsInit) => {
      done.push(options);
      return subscription;
    },
  };
  return { manager, done };
}

test("keys are read as base64url", () => {
  expect([...bytesOf("-_8A")]).toEqual([251, 255, 0]);
});

test("a browser subscribes once with the key of the control plane", async () => {
  const fresh = browser();
  expect(await subscribed(fresh.manager, "AQID")).toEqual(request);
  expect(fresh.done).toEqual([{ userVisibleOnly: true, applicationServerKey: bytesOf("AQID") }]);
  const known = browser("AQID");
  expect(await subscribed(known.manager, "AQID")).toEqual(request);
  expect(known.done).toEqual([]);
});

test("a subscription with another key is replaced", async () => {
  for (const other of ["AQIE", "AQ"]) {
    const { manager, done } = browser(other);
    await subscribed(manager, "AQID");
    expect(done).toEqual(["unsubscribe", { userVisibleOnly: true, applicationServerKey: bytesOf("AQID") }]);
  }
});
