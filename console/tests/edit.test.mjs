// Workflows as YAML, checked by the server while they are typed, in a real browser.
import assert from "node:assert/strict";
import { test } from "node:test";
import { accessible, base, fits, nothingFailed, setUp, signedIn } from "./harness.mjs";

setUp();

const task = (line) => `{target: {agent: shell}, runtime: {command: {shell: "${line}"}}}`;

test("a workflow is typed, checked, drawn and run, and edited again", async () => {
  const page = await signedIn({ colorScheme: "light" });
  await page.keyboard.press("w");
  await page.getByRole("link", { name: "New workflow" }).focus();
  await page.keyboard.press("Enter");
  const source = page.getByLabel("Specification, in YAML");
  await page.getByText("The server accepts it.").waitFor();
  await page.getByRole("img", { name: "Graph of 2 steps" }).waitFor();
  await accessible(page, "a new workflow, light");
  await page.emulateMedia({ colorScheme: "dark" });
  await accessible(page, "a new workflow, dark");

  // What is no YAML has a line, and the picture stays.
  await source.fill("title: x\nsteps: [\n  {name: a");
  await page.getByRole("alert").waitFor();
  assert.ok(await page.getByRole("button", { name: "Run" }).isDisabled());
  await page.getByRole("button", { name: /^Line [0-9]+$/ }).waitFor();
  await page.getByRole("img", { name: "Graph of 2 steps" }).waitFor();

  // What the server refuses is named with the line of the field.
  const steps = (need) =>
    `title: typed\nsteps:\n  - name: one\n    task: ${task("echo 1")}\n  - name: two\n    needs:\n      - step: ${need}\n    task: ${task("echo 2")}\n`;
  await source.fill(steps("nothing"));
  await page.getByRole("alert").filter({ hasText: "nothing" }).waitFor();
  await page.getByRole("button", { name: "Line 7" }).click();
  const selected = await source.evaluate((area) => area.value.slice(area.selectionStart, area.selectionEnd));
  assert.equal(selected.trim(), "- step: nothing");

  // What was typed survives a reload.
  await source.fill(steps("one"));
  await page.getByText("The server accepts it.").waitFor();
  await page.reload();
  await page.getByText("The server accepts it.").waitFor();
  assert.match(await source.inputValue(), /typed/);
  await page.getByRole("button", { name: "Run" }).click();
  await page.waitForURL(/workflows\/default\/[0-9a-f-]{36}/);
  await page.locator(".bar .state.succeeded").waitFor();

  await page.getByRole("link", { name: "Edit as a new one" }).click();
  await page.waitForURL(/workflows\/new/);
  await page.getByText("The server accepts it.").waitFor();
  assert.match(await source.inputValue(), /echo 2/);
  // Each has a draft of its own, which is preferred over what it was made from.
  await source.fill((await source.inputValue()).replace("echo 2", "echo 3"));
  await page.reload();
  await page.getByText("The server accepts it.").waitFor();
  assert.match(await source.inputValue(), /echo 3/);
  const made = page.url();
  await page.goto(`${base}/workflows/new`);
  assert.match(await source.inputValue(), /An example/);
  await page.goto(made);
  assert.match(await source.inputValue(), /echo 3/);
  await page.getByRole("button", { name: "Discard the draft" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Discard the draft" }).click();
  await page.waitForFunction(() => document.querySelector("textarea")?.value.includes("echo 2"));
  await page.setViewportSize({ width: 360, height: 640 });
  await fits(page, "a new workflow");
  await page.goto(`${base}/workflows`);
  await page.getByRole("link", { name: "typed" }).waitFor();
  await page.context().close();
});

nothingFailed();
