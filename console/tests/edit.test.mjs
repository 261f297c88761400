// Workflows as YAML, checked by the server while they are typed, in a real browser.
import assert from "node:assert/strict";
import { test } from "node:test";
import { accessible, base, editorOf, fits, nothingFailed, setUp, signedIn, textOf } from "./harness.mjs";

setUp();

const task = (line) => `{target: {agent: shell}, runtime: {command: {shell: "${line}"}}}`;

test("a workflow is typed, checked, drawn and run, and edited again", async () => {
  const page = await signedIn({ colorScheme: "light" });
  await page.keyboard.press("w");
  await page.getByRole("link", { name: "New workflow" }).focus();
  await page.keyboard.press("Enter");
  const source = editorOf(page);
  await page.getByText("The server accepts it.").waitFor();
  await page.getByRole("img", { name: "Graph of 2 steps" }).waitFor();
  await accessible(page, "a new workflow, light");
  await page.emulateMedia({ colorScheme: "dark" });
  await accessible(page, "a new workflow, dark");

  // Tab indents, and leaves the text after Escape.
  await source.focus();
  await page.keyboard.press("Control+End");
  await page.keyboard.type("xyz");
  await page.keyboard.press("Control+z");
  await page.keyboard.press("Control+Home");
  await page.keyboard.press("Tab");
  assert.match(await textOf(source), /^ {2}title: An example/);
  await page.keyboard.press("Shift+Tab");
  assert.match(await textOf(source), /^title: An example/);
  const isIn = () => source.evaluate((editor) => editor.contains(document.activeElement));
  // The key tab counts as the next one for two seconds, which a stalled machine may miss.
  for (let tries = 0; tries < 10 && (await isIn()); tries += 1) {
    await page.keyboard.press("Escape");
    await page.keyboard.press("Tab");
  }
  assert.equal(await isIn(), false);

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
  const selected = await page.evaluate(() => getSelection().toString());
  assert.equal(selected.trim(), "- step: nothing");
  // The line has the problem, by pointer and by keyboard.
  assert.equal(await source.locator(".cm-lintRange-error").textContent(), "- step: nothing");
  assert.equal(await source.getAttribute("aria-invalid"), "true");
  await page.locator(".cm-lint-marker-error").hover();
  await page.locator(".cm-tooltip").getByText("nothing").waitFor();
  await accessible(page, "a workflow with a problem, dark");
  await page.emulateMedia({ colorScheme: "light" });
  await accessible(page, "a workflow with a problem, light");
  await source.focus();
  await page.keyboard.press("Control+Shift+M");
  await page.getByRole("listbox", { name: "Diagnostics" }).getByText("nothing").waitFor();
  await accessible(page, "the list of problems");
  await page.keyboard.press("Escape");

  // What was typed survives a reload.
  await source.fill(steps("one"));
  await page.getByText("The server accepts it.").waitFor();
  await page.reload();
  await page.getByText("The server accepts it.").waitFor();
  assert.match(await textOf(source), /typed/);
  assert.equal(await source.getAttribute("aria-invalid"), "false");
  assert.equal(await source.locator(".cm-lintRange-error").count(), 0);
  await page.getByRole("button", { name: "Run" }).click();
  await page.waitForURL(/workflows\/default\/[0-9a-f-]{36}/);
  await page.locator(".bar .state.succeeded").waitFor();

  await page.getByRole("link", { name: "Edit as a new one" }).click();
  await page.waitForURL(/workflows\/new/);
  await page.getByText("The server accepts it.").waitFor();
  assert.match(await textOf(source), /echo 2/);
  // Each has a draft of its own, which is preferred over what it was made from.
  await source.fill((await textOf(source)).replace("echo 2", "echo 3"));
  await page.reload();
  await page.getByText("The server accepts it.").waitFor();
  assert.match(await textOf(source), /echo 3/);
  const made = page.url();
  await page.goto(`${base}/workflows/new`);
  await source.filter({ hasText: "An example" }).waitFor();
  await page.goto(made);
  await source.filter({ hasText: "echo 3" }).waitFor();
  await page.getByRole("button", { name: "Discard the draft" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Discard the draft" }).click();
  await source.filter({ hasText: "echo 2" }).waitFor();
  await page.setViewportSize({ width: 360, height: 640 });
  await fits(page, "a new workflow");
  await page.goto(`${base}/workflows`);
  await page.getByRole("link", { name: "typed" }).waitFor();
  await page.context().close();
});

test("a run that fails hides nothing of what is typed next", async () => {
  const page = await signedIn();
  await page.goto(`${base}/workflows/new`);
  await page.getByText("The server accepts it.").waitFor();
  const source = editorOf(page);
  const given = await textOf(source);
  const run = /workflows\?idempotencyKey=/;
  await page.route(run, (route) => route.abort());
  await page.getByRole("button", { name: "Run" }).click();
  const failure = page.getByRole("alert").filter({ hasText: "cannot be reached" });
  await failure.waitFor();
  await source.fill(given.replace("step: build", "step: nothing"));
  await page.getByRole("alert").filter({ hasText: "nothing" }).waitFor();
  assert.equal(await failure.count(), 0);
  await page.unroute(run);
  await source.fill(given);
  await page.getByText("The server accepts it.").waitFor();
  assert.equal(await page.getByRole("alert").count(), 0);
  await page.getByRole("button", { name: "Run" }).click();
  await page.waitForURL(/workflows\/default\/[0-9a-f-]{36}/);
  await page.context().close();
});

test("a draft for which the browser has no room is reported", async () => {
  const page = await signedIn({ viewport: { width: 360, height: 640 } });
  await page.goto(`${base}/workflows/new`);
  await page.getByText("The server accepts it.").waitFor();
  await page.evaluate(() => {
    Storage.prototype.setItem = () => {
      throw new DOMException("full", "QuotaExceededError");
    };
  });
  const source = editorOf(page);
  const given = await textOf(source);
  await source.fill(given.replace("An example", "Another one"));
  await page.getByRole("alert").filter({ hasText: "The browser has no room" }).waitFor();
  await page.getByText("The server accepts it.").waitFor();
  await accessible(page, "a draft without room");
  await fits(page, "a draft without room");
  await page.context().close();
});

nothingFailed();
