import { afterEach, expect, test, vi } from "vitest";
import { ownerOf } from "./session";
import type { BrowserSession } from "./types";

/** What a window receives of the others of its browser. */
class Channel {
  static last: Channel | undefined;
  onmessage: (event: { data: unknown }) => void = () => {};
  postMessage = vi.fn();
  constructor() {
    Channel.last = this;
  }
}

/** Opens a window in which Ada has signed in and typed a draft. */
async function open() {
  const drafts = new Map<string, string>();
  let session: BrowserSession = { subject: "ada" };
  vi.resetModules();
  vi.stubGlobal("BroadcastChannel", Channel);
  vi.stubGlobal("fetch", async () => Response.json(session));
  const reload = vi.fn();
  vi.stubGlobal("location", { hash: "", reload });
  vi.stubGlobal("sessionStorage", {
    get length() {
      return drafts.size;
    },
    key: (at: number) => [...drafts.keys()][at] ?? null,
    getItem: (key: string) => drafts.get(key) ?? null,
    setItem: (key: string, value: string) => drafts.set(key, value),
    removeItem: (key: string) => drafts.delete(key),
  });
  const [token, { startSession }, { keepDraft }] = await Promise.all([
    import("./token"),
    import("./session"),
    import("../drafts"),
  ]);
  await startSession();
  keepDraft(undefined, "half a plan");
  const receive = (data: unknown) => Channel.last?.onmessage({ data });
  return {
    ...token,
    drafts,
    reload,
    receive,
    /** A person signs in in another window. */
    signsIn: (other: BrowserSession) => {
      session = other;
      receive(ownerOf(other));
    },
  };
}

afterEach(() => vi.unstubAllGlobals());

test("the pages of one person are not continued by another, but loaded again", async () => {
  for (const hasNoticed of [true, false]) {
    const window = await open();
    expect([window.isSignedIn(), window.drafts.size]).toEqual([true, 1]);
    if (hasNoticed) {
      window.expire("the session has ended");
    }
    window.signsIn({ subject: "bob" });
    expect(window.isSignedIn()).toBe(false);
    await vi.waitFor(() => expect(window.reload).toHaveBeenCalledOnce());
    expect([window.isSignedIn(), window.drafts.size]).toEqual([false, 0]);
  }
});

test("the pages of a person go on when the same person signs in again", async () => {
  const window = await open();
  window.expire("the session has ended");
  window.signsIn({ subject: "ada" });
  await vi.waitFor(() => expect(window.isSignedIn()).toBe(true));
  expect([window.reload.mock.calls, window.drafts.size]).toEqual([[], 1]);
});

test("a sign-out in another window ends the pages and drafts of this one, also of an expired session", async () => {
  for (const hasEnded of [false, true]) {
    const window = await open();
    if (hasEnded) {
      window.expire("the session has ended");
    }
    window.receive("out");
    expect([window.isSignedIn(), window.isExpired(), window.drafts.size]).toEqual([false, false, 0]);
  }
});

test("sessions of one person have one owner, and those of a token one for its role", () => {
  expect(ownerOf({ subject: "ada", role: "admin" })).toBe(ownerOf({ subject: "ada", role: "viewer" }));
  const owners = [
    { subject: "ada", role: "admin" },
    { subject: "eve" },
    { role: "admin" },
    { role: "viewer" },
  ];
  // No subject is taken for a token.
  const all = [...owners, { subject: "token admin" }].map(ownerOf);
  expect(new Set(all).size).toBe(all.length);
});
