// What is wrong, in a real browser.
import { test } from "node:test";
import {
  accessible,
  api,
  awayFromMidnight,
  fits,
  nothingFailed,
  scripted,
  setUp,
  signedIn,
  WAIT_TIMEOUT,
} from "./harness.mjs";

setUp();

const HOSTILE = "<img src=x onerror=alert(1)>\u202e";

test("an open breaker and an exhausted budget are alerts, and no longer after their end", async () => {
  const page = await signedIn({ colorScheme: "light", viewport: { width: 360, height: 640 } });
  await page.keyboard.press("l");
  await page.getByText("Nothing is wrong.").waitFor();
  // The tasks are not to blame: they wait, and the breaker of their agent opens after some of them.
  const names = [];
  for (let count = 0; count < 6; count += 1) {
    names.push(await scripted("refused", [{ fail: { class: "auth", message: HOSTILE } }]));
  }
  const again = page.getByRole("button", { name: "Read again" });
  const breaker = page.getByRole("article", { name: "breaker_open" });
  const empty = page.getByText("Nothing is wrong.");
  await readUntil(again, breaker);
  await breaker.getByText("<img src=x onerror=alert(1)>[U+202E]").waitFor();
  await breaker.getByText(/since .+\(.+\)/).waitFor();
  // The number is in the navigation of every page, and the inbox leads there.
  await page.locator("nav .badge", { hasText: "alert" }).first().waitFor();
  await page.keyboard.press("i");
  await page.getByRole("link", { name: /^1 alert$/ }).click();
  await breaker.getByRole("link", { name: "script" }).waitFor();
  await fits(page, "alerts");
  await accessible(page, "alerts, light");
  await page.emulateMedia({ colorScheme: "dark" });
  await accessible(page, "alerts, dark");
  for (const name of names) {
    await api("POST", `${name}:cancel`, {});
  }
  await api("POST", "namespaces/default/agents/script:resetBreaker", {});
  await readUntil(again, empty);

  await awayFromMidnight();
  const usage = { usage: { costMicroUsd: 2_500_000 } };
  await api("PUT", "namespaces/default/budget", { dailyMicroUsd: "2000000" });
  await scripted("costly", [usage, { succeed: "done" }]);
  const budget = page.getByRole("article", { name: "budget_exhausted" });
  await readUntil(again, budget);
  await budget.getByRole("link", { name: "namespace default" }).click();
  await page.getByRole("heading", { name: "Costs and budgets" }).waitFor();
  await page.context().close();
});

/** Reads again until something is shown: what is wrong is not pushed. */
async function readUntil(button, wanted) {
  const end = Date.now() + WAIT_TIMEOUT;
  while (!(await wanted.isVisible())) {
    if (Date.now() > end) {
      return wanted.waitFor({ timeout: 1 });
    }
    await button.click();
  }
}

nothingFailed();
