// Notifications and a tone when something begins to wait for a person, in a real browser.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  accessible,
  api,
  browser,
  fits,
  nothingFailed,
  scripted,
  setUp,
  signIn,
  until,
  WAIT_TIMEOUT,
} from "./harness.mjs";

setUp();

/** Notes what the browser's own notifications and tones were made of. */
function watch() {
  window.noticed = [];
  window.tones = 0;
  const Native = window.Notification;
  window.Notification = class extends Native {
    constructor(title, options) {
      super(title, options);
      window.noticed.push([title, options.body]);
      window.last = this;
    }
  };
  const start = OscillatorNode.prototype.start;
  OscillatorNode.prototype.start = function (...args) {
    window.tones += 1;
    return start.apply(this, args);
  };
}

async function open(permissions) {
  const context = await browser.newContext({ locale: "en-US", permissions });
  await context.addInitScript(watch);
  const page = await signIn(context);
  await page.keyboard.press("i");
  return page;
}

/** Waits until an expression is true; the policy of the page lets no test wait in the page itself. */
async function holds(page, expression) {
  const end = Date.now() + WAIT_TIMEOUT;
  while (!(await page.evaluate(expression))) {
    assert.ok(Date.now() < end, expression);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

test("what begins to wait is notified of, once, and opens on a click", async () => {
  const first = await scripted("from before", [{ remember: "x" }, { ask: "Old?" }, { succeed: "yes" }]);
  await until(first, "TASK_STATE_PENDING");
  const page = await open(["notifications"]);
  await page.getByText("Old?").waitFor();
  const notification = page.getByRole("button", { name: "Notification" });
  await notification.focus();
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Notification: on" }).waitFor();
  await page.getByRole("button", { name: "Sound" }).click();
  await page.getByRole("button", { name: "Sound: on" }).waitFor();
  // The switch plays the tone, once the browser has opened its audio device.
  await holds(page, "tones === 1");
  await fits(page, "inbox");
  await accessible(page, "inbox");

  // The settings are of the browser, not of the page.
  await page.reload();
  await page.getByRole("button", { name: "Notification: on" }).waitFor();
  await page.getByRole("button", { name: "Sound: on" }).waitFor();

  // What waits is read: nothing of it is new from here on.
  await page.getByText("Old?").waitFor();
  await page.getByText("Loading…").first().waitFor({ state: "detached" });
  await page.keyboard.press("t");
  await page.getByRole("heading", { name: "Tasks" }).waitFor();
  const second = await scripted("a new one", [
    { remember: "x" },
    { ask: "Which\u202e way?" },
    { succeed: "yes" },
  ]);
  await holds(page, "noticed.length > 0");
  await holds(page, "tones > 0");
  const steps = [{ name: "look", approval: { prompt: "Is it good?" } }];
  const workflow = await api("POST", "namespaces/default/workflows", { spec: { title: "release", steps } });
  await holds(page, "noticed.length > 1");
  assert.deepEqual(await page.evaluate("noticed"), [
    ["a new one", "Which[U+202E] way?"],
    ["release", "Is it good?"],
  ]);
  await page.evaluate("last.onclick()");
  await page.waitForURL(/workflows\/default/);
  // In the inbox itself none is needed.
  await page.keyboard.press("i");
  await page.getByRole("heading", { name: "Inbox" }).waitFor();
  const third = await scripted("a third one", [{ remember: "x" }, { ask: "Again?" }, { succeed: "yes" }]);
  await page.getByText("Again?").waitFor();
  assert.equal(await page.evaluate("noticed.length"), 2);
  for (const name of [first, second, third]) {
    await api("POST", `${name}:cancel`, {});
  }
  await api("POST", `${workflow.name}:cancel`, {});
  await page.context().close();
});

test("a browser that refuses notifications is named as the cause", async () => {
  const page = await open([]);
  await page.getByRole("button", { name: "Notification: off" }).click();
  await page.getByRole("alert").filter({ hasText: "settings of the browser" }).waitFor();
  await page.getByRole("button", { name: "Notification: off" }).waitFor();
  const name = await scripted("unheard", [{ ask: "Well?" }, { succeed: "yes" }]);
  await page.keyboard.press("t");
  await page.locator(".badge", { hasText: "1 waiting" }).waitFor();
  assert.deepEqual(await page.evaluate("[noticed.length, tones]"), [0, 0]);
  await api("POST", `${name}:cancel`, {});
  await page.context().close();
});

nothingFailed();
