// Push messages, which reach a browser while no page is open: the switch in the inbox, and what the service worker does with a message. Browsers
// of tests have no push service: its part is played here.
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import {
  accessible,
  base,
  browser,
  fits,
  folder,
  freePort,
  newPage,
  nothingFailed,
  run,
  serve,
  setUp,
  signIn,
  stop,
  tasksShown,
  WAIT_TIMEOUT,
} from "./harness.mjs";

setUp();

/** Gives the browser an address at a push service, where nothing is ever sent: no task asks anything meanwhile. */
function subscribeByItself() {
  const endpoint = "https://fcm.googleapis.com/fcm/send/test";
  const keys = {
    p256dh: "BLn9b-VR0ca83knDNZ32dCHGyjJp-1riX9ZTN40MqV8K_LpQmLqxC_DoHvqvFXO_nGdAB4W9dogZb_sM-uV4JbY",
    auth: "_ordMnz7uTCmrpBTeUV4Bw",
  };
  let made = null;
  PushManager.prototype.getSubscription = async () => made;
  PushManager.prototype.subscribe = async ({ applicationServerKey }) => {
    made = {
      options: { applicationServerKey: applicationServerKey.buffer },
      toJSON: () => ({ endpoint, keys }),
      unsubscribe: async () => {
        made = null;
        return true;
      },
    };
    return made;
  };
}

async function open(permissions) {
  const context = await browser.newContext({ locale: "en-US", permissions });
  await context.addInitScript(subscribeByItself);
  const page = await signIn(context);
  await page.keyboard.press("i");
  await page.getByRole("button", { name: "Push messages: off" }).waitFor();
  return page;
}

/** Waits until a value is as expected. */
async function becomes(read, expected) {
  const end = Date.now() + WAIT_TIMEOUT;
  for (;;) {
    const found = await read();
    if (JSON.stringify(found) === JSON.stringify(expected)) {
      return;
    }
    assert.ok(Date.now() < end, JSON.stringify(found));
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

test("a push message is shown by the service worker, and opens its page on a click", async () => {
  const page = await open(["notifications"]);
  const devtools = await page.context().newCDPSession(page);
  const registrations = new Map();
  devtools.on("ServiceWorker.workerRegistrationUpdated", ({ registrations: all }) => {
    for (const { scopeURL, registrationId } of all) {
      registrations.set(scopeURL, registrationId);
    }
  });
  await devtools.send("ServiceWorker.enable");
  await page.getByRole("button", { name: "Push messages" }).focus();
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Push messages: on" }).waitFor();
  await fits(page, "inbox");
  await accessible(page, "inbox");
  // The control plane knows it, and the page asks it.
  await page.reload();
  await page.getByRole("button", { name: "Push messages: on" }).waitFor();

  const deliver = (message) =>
    devtools.send("ServiceWorker.deliverPushMessage", {
      origin: base,
      registrationId: registrations.get(`${base}/`),
      data: JSON.stringify(message),
    });
  const shown = () =>
    page.evaluate(async () => {
      const { active } = await navigator.serviceWorker.getRegistration();
      const all = active ? await (await navigator.serviceWorker.ready).getNotifications() : [];
      return all.map(({ title, body, tag }) => [title, body, tag]);
    });
  await page.keyboard.press("t");
  await page.getByRole("heading", { name: "Tasks" }).waitFor();
  const message = { title: "build", text: "Which way?", path: "/agents", tag: "tasks/1 a" };
  await deliver(message);
  await becomes(shown, [["build", "Which way?", "tasks/1 a"]]);
  // The same again takes its place.
  await deliver({ ...message, text: "Which way now?" });
  await becomes(shown, [["build", "Which way now?", "tasks/1 a"]]);
  const [worker] = page.context().serviceWorkers();
  await worker.evaluate(async () => {
    const [notification] = await self.registration.getNotifications();
    self.dispatchEvent(new NotificationEvent("notificationclick", { notification }));
  });
  await page.waitForURL(/agents/);
  await becomes(shown, []);

  await page.keyboard.press("i");
  await page.getByRole("button", { name: "Push messages: on" }).click();
  await page.getByRole("button", { name: "Push messages: off" }).waitFor();
  await page.reload();
  // Who signs in after a sign-out is asked again.
  await page.getByRole("button", { name: "Push messages: off" }).click();
  await page.getByRole("button", { name: "Push messages: on" }).waitFor();
  await page.getByRole("button", { name: "Sign out" }).click();
  const kept = await page.evaluate(() =>
    Object.keys(localStorage).filter((key) => key.startsWith("rota.push")),
  );
  assert.deepEqual(kept, []);
  await page.context().close();
});

test("a browser that refuses notifications is not subscribed", async () => {
  const page = await open([]);
  await page.getByRole("button", { name: "Push messages: off" }).click();
  await page.getByRole("alert").filter({ hasText: "settings of the browser" }).waitFor();
  await page.getByRole("button", { name: "Push messages: off" }).waitFor();
  await page.context().close();
});

test("who signs in again after the end of a session is subscribed again, and no one else", async () => {
  const endpoint = `http://127.0.0.1:${await freePort()}`;
  const [admin, viewer] = ["admin", "viewer"].map((name) => `${name}-0123456789012345678901234567890`);
  const file = (token) => {
    const path = join(folder, token);
    writeFileSync(path, `${token}\n`, { mode: 0o600 });
    return path;
  };
  const tokens = ["--token-file", file(admin), "--viewer-token-file", file(viewer)];
  const data = join(folder, "pushing");
  const server = await serve(
    ["server", "--listen", new URL(endpoint).host, "--data-dir", data, ...tokens],
    endpoint,
  );
  const context = await browser.newContext({ locale: "en-US", permissions: ["notifications"] });
  await context.addInitScript(subscribeByItself);
  const page = await newPage(context);
  let subscriptions = 0;
  page.on("request", (request) => {
    subscriptions += request.url().endsWith(":subscribeWebPush") ? 1 : 0;
  });
  const read = (path) =>
    page.evaluate(async (path) => (await fetch(`/api/v1/browserSessions/${path}`)).json(), path);
  const isSubscribed = async () => (await read("current/webPush")).subscribed ?? false;
  const signInAgain = async (token) => {
    const { name } = await read("current");
    const headers = { Authorization: `Bearer ${admin}`, "Content-Type": "application/json" };
    const options = { method: "POST", headers, body: "{}" };
    assert.equal((await fetch(`${endpoint}/api/v1/${name}:revoke`, options)).status, 200);
    await page.getByLabel("Token").fill(token);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("heading", { name: "Inbox" }).waitFor();
  };
  await page.goto((await run(["--endpoint", endpoint, ...tokens.slice(0, 2), "ui"])).trim());
  await tasksShown(page);
  await page.keyboard.press("i");
  await page.evaluate("window.kept = true");
  await page.getByRole("button", { name: "Push messages: off" }).click();
  await page.getByRole("button", { name: "Push messages: on" }).waitFor();
  await signInAgain(admin);
  await becomes(isSubscribed, true);
  await page.getByRole("button", { name: "Push messages: on" }).waitFor();
  assert.equal(await page.evaluate("window.kept"), true);
  // What one has asked for is not done for another, and is kept for the one.
  await signInAgain(viewer);
  await page.getByText("read only").waitFor();
  await page.getByRole("button", { name: "Push messages: off" }).waitFor();
  assert.equal(await isSubscribed(), false);
  await signInAgain(admin);
  await becomes(isSubscribed, true);
  assert.equal(subscriptions, 3);
  await context.close();
  await stop(server);
});

nothingFailed();
