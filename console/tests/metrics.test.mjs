// Metrics with their history, in a real browser.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  accessible,
  api,
  fits,
  kill,
  nothingFailed,
  scripted,
  setUp,
  signedIn,
  start,
  until,
} from "./harness.mjs";

setUp();

/** Number of pixels of a canvas that are not empty, in thousandths. */
const drawn = (canvas) =>
  canvas.evaluate((canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let count = 0;
    for (let at = 3; at < data.length; at += 4) {
      count += data[at] > 0 ? 1 : 0;
    }
    return (1000 * count) / (canvas.width * canvas.height);
  });

test("what was done is charted, and is in a table, also after a restart", async () => {
  const page = await signedIn({ colorScheme: "light", viewport: { width: 360, height: 640 } });
  const usage = { usage: { costMicroUsd: 2_500_000, inputTokens: 100 } };
  await until(await scripted("one", [usage, { succeed: "done" }]), "TASK_STATE_SUCCEEDED");
  await until(await scripted("two", [{ fail: { class: "task", message: "no" } }]), "TASK_STATE_FAILED");
  await page.keyboard.press("m");
  const charts = page.getByRole("img");
  await charts.first().locator("canvas").waitFor();
  assert.equal(await charts.count(), 7);
  for (const chart of await charts.all()) {
    assert.ok((await drawn(chart.locator("canvas"))) > 1, await chart.getAttribute("aria-label"));
  }
  await fits(page, "metrics");
  await accessible(page, "metrics, light");
  await page.emulateMedia({ colorScheme: "dark" });
  await accessible(page, "metrics, dark");

  // The value at a place of a chart.
  const tasks = page.locator("figure", { hasText: "Tasks" }).first();
  const box = await tasks.locator(".u-over").boundingBox();
  await page.mouse.move(box.x + box.width - 2, box.y + box.height / 2);
  await tasks.getByText(/created: [0-9]/).waitFor();

  await page.getByRole("button", { name: "Table" }).focus();
  await page.keyboard.press("Enter");
  await page.waitForURL(/view=table/);
  const values = page.getByRole("region", { name: "Values" });
  /** Sum of a column over all rows: the tasks may have ended in two minutes. */
  const sum = (head) =>
    values.evaluate((region, head) => {
      const heads = [...region.querySelectorAll("th")].map((one) => one.textContent);
      const rows = [...region.querySelectorAll("tbody tr")];
      const number = (row) =>
        Number(row.cells[heads.indexOf(head)].textContent.replace("$", "").replace(" s", ""));
      return rows.reduce((total, row) => total + number(row), 0);
    }, head);
  await values.waitFor();
  const all = async () => ({
    created: await sum("Tasks: created"),
    succeeded: await sum("Tasks: succeeded"),
    failed: await sum("Tasks: failed"),
    cost: await sum("Cost: cost"),
    input: await sum("Tokens: input"),
  });
  const expected = { created: 2, succeeded: 1, failed: 1, cost: 2.5, input: 100 };
  // A reading serves for a second.
  for (const end = Date.now() + 60_000; Date.now() < end; ) {
    if (JSON.stringify(await all()) === JSON.stringify(expected)) {
      break;
    }
    await page.getByRole("button", { name: "Read again" }).click();
    await page.locator("button:enabled", { hasText: "Read again" }).waitFor();
  }
  assert.deepEqual(await all(), expected);
  const written = async () => {
    const { backgroundTasks } = await api("GET", "system/backgroundTasks");
    return Number(backgroundTasks.find((one) => one.name === "metrics-history").succeeded ?? 0);
  };
  // What was written before may lack these tasks.
  const before = await written();
  await fits(page, "metrics, table");
  await accessible(page, "metrics, table");

  // Filters are in the address.
  await page.getByLabel("Agent").fill("shell");
  await page.keyboard.press("Enter");
  await page.waitForURL(/agent=shell/);
  // The address changes first: once the page follows, its links have the filter.
  const ofShell = page.locator('[href*="agent=shell"]');
  await page.getByRole("link", { name: "30 days" }).and(ofShell).click();
  await page.waitForURL(/hours=720/);
  await page.getByText("by the hour").waitFor();
  assert.equal(await page.getByLabel("Agent").inputValue(), "shell");
  await page.getByLabel("Agent").fill("no agent's name");
  await page.keyboard.press("Enter");
  await page.getByRole("alert").waitFor();
  await page.getByLabel("Agent").fill("script");
  await page.keyboard.press("Enter");
  await values.waitFor();
  assert.equal(await sum("Tasks: succeeded"), 1);

  // What was written before the control plane was killed is still there.
  for (const end = Date.now() + 180_000; (await written()) === before; ) {
    assert.ok(Date.now() < end, "no history is written");
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  await kill();
  await start();
  await page.reload();
  await values.waitFor();
  assert.equal(await sum("Tasks: succeeded"), 1);
  assert.equal(await sum("Cost: cost"), 2.5);
  await page.context().close();
});

nothingFailed();
