// Push messages, which reach a browser while no page is open: the switch in the inbox, and what the service worker does with a message. Browsers
// of tests have no push service: its part is played here.
import assert from "node:assert/strict";
import { test } from "node:test";
import { accessible, base, browser, fits, nothingFailed, setUp, signIn, WAIT_TIMEOUT } from "./harness.mjs";

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

nothingFailed();
