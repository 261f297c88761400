// The search of a whole log, and links to its lines, in a real browser.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import {
  accessible,
  api,
  base,
  eventually,
  fits,
  longLog,
  nothingFailed,
  setUp,
  shell,
  signedIn,
  until,
} from "./harness.mjs";

setUp();

test("a text is found where the page has left the log out, and each line has a link", async () => {
  const page = await signedIn();
  // More lines than a page keeps.
  const lines = "echo the early needle; seq -f 'row %g' 1 60000; echo the late NEEDLE";
  await shell(lines, "--title", "a long log");
  const { tasks } = await api("GET", "namespaces/default/tasks");
  const { name } = tasks.find((task) => task.spec.title === "a long log");
  await until(name, "TASK_STATE_SUCCEEDED");
  await page.goto(`${base}/tasks/default/${name.split("/").at(-1)}`);
  const log = page.getByRole("region", { name: "Log" });
  await log.getByText("the late NEEDLE").waitFor();
  await page.getByRole("button", { name: "Following" }).waitFor();
  // A download has what the page has left out, too.
  const saved = page.waitForEvent("download");
  await page.getByRole("link", { name: "Download", exact: true }).click();
  const text = readFileSync(await (await saved).path(), "utf8");
  assert.equal((await saved).suggestedFilename(), `${name.split("/").at(-1)}.log`);
  assert.equal(text.match(/^row [0-9.e+]+$/gm)?.length, 60_000);
  assert.ok(text.includes("the early needle") && text.includes("the late NEEDLE"));
  const field = page.getByLabel("Find in the log");
  await field.fill("Needle");
  await page.getByRole("button", { name: "Search all of it" }).focus();
  await page.keyboard.press("Enter");
  await page.getByText("Hit 1 of 2.").waitFor();
  const hit = log.locator(".line.hit");
  await hit.getByText("the early needle").waitFor();
  await log.getByText("row 1", { exact: true }).waitFor();
  await page.getByText(/lines around entry/).waitFor();
  await page.getByRole("button", { name: "Paused: follow" }).waitFor();
  await accessible(page, "a hit");
  await page.getByRole("button", { name: "Next hit" }).click();
  await page.getByText("Hit 2 of 2.").waitFor();
  await hit.getByText("the late NEEDLE").waitFor();
  await page.getByRole("button", { name: "Previous hit" }).click();
  await hit.getByText("the early needle").waitFor();

  // The address is a link to the line.
  const address = page.url();
  assert.match(address, /line=[0-9]+/);
  await page.goto("about:blank");
  await page.goto(address);
  await hit.waitFor();
  await log.getByText("the early needle").waitFor();
  await page.getByRole("button", { name: "Paused: follow" }).click();
  await log.getByText("the late NEEDLE").waitFor();
  assert.equal(await hit.count(), 0);
  await log.locator("a.at").last().click();
  await hit.waitFor();
  assert.match(page.url(), /line=[0-9]+/);

  await field.fill("not there");
  await page.getByRole("button", { name: "Search all of it" }).click();
  await page.getByText("Not in the log.").waitFor();
  await page.setViewportSize({ width: 360, height: 640 });
  await fits(page, "a search");
  await page.context().close();
});

test("of a log of many mebibytes a page reads the end, and the rest when it is asked for", async () => {
  const name = await longLog("very long", 2 * 15.875);
  await until(name, "TASK_STATE_SUCCEEDED", 300_000);
  const page = await signedIn();
  await page.goto(`${base}/tasks/default/${name.split("/").at(-1)}`);
  const log = page.getByRole("region", { name: "Log" });
  await log.getByText("the end", { exact: true }).waitFor();
  const note = log.getByText(/^[0-9]+ earlier entries( and [0-9]+ earlier lines)? are left out here/);
  const isAtBegin = async () => {
    // A last line that arrives brings the page back to the end.
    await log.press("Home");
    return note.isVisible();
  };
  await eventually(isAtBegin, "the log does not go to its beginning");
  await page.getByLabel("Find in the log").fill("attempt 1");
  await page.getByRole("button", { name: "Search all of it" }).click();
  await log.locator(".line.hit").getByText("attempt 1", { exact: true }).waitFor();
  await log.getByText("row 000000000000001 of the log").waitFor();
  await page.context().close();
});

nothingFailed();
