// The documentation of the HTTP API, from which calls are made, in a real browser.
import assert from "node:assert/strict";
import { test } from "node:test";
import { api, base, fits, nothingFailed, setUp, signedIn } from "./harness.mjs";

setUp();

test("calls are made from their documentation with the session, and nothing is loaded from elsewhere", async () => {
  const runtime = { scripted: { steps: [{ succeed: "done" }] } };
  const task = { alias: "called-from-docs", spec: { target: { agent: "script" }, runtime } };
  const { name } = await api("POST", "namespaces/default/tasks", task);
  const page = await signedIn();
  const foreign = [];
  page.on("request", (request) => {
    if (!request.url().startsWith(base) && !/^(data|blob):/.test(request.url())) {
      foreign.push(request.url());
    }
  });
  await page.keyboard.press("d");
  await page.getByRole("heading", { name: "HTTP API" }).waitFor();
  await page.locator("#operations-tag-Task").click();
  await page.locator("#operations-Task-getTask").getByRole("button").first().click();
  const call = page.locator("#operations-Task-getTask");
  await call.getByRole("button", { name: "Try it out" }).click();
  await call.getByPlaceholder("namespace").fill("default");
  await call.getByPlaceholder("task", { exact: true }).fill("called-from-docs");
  const answered = page.waitForResponse(`${base}/api/v1/namespaces/default/tasks/called-from-docs`);
  await call.getByRole("button", { name: "Execute" }).click();
  assert.equal((await answered).status(), 200);
  await call.locator(".live-responses-table").getByText(name).first().waitFor();
  // A map that no one has filled in is empty, and no filter by the library's examples.
  await page.locator("#operations-tag-Agent").click();
  const list = page.locator("#operations-Agent-listAgents");
  await list.getByRole("button").first().click();
  await list.getByRole("button", { name: "Try it out" }).click();
  await list.getByPlaceholder("namespace").fill("default");
  const listed = page.waitForResponse(`${base}/api/v1/namespaces/default/agents`);
  await list.getByRole("button", { name: "Execute" }).click();
  assert.equal((await (await listed).json()).agents.length, 2);
  // A stream would be read without an end.
  const stream = page.locator("#operations-Task-watchTask");
  await stream.getByRole("button").first().click();
  await stream.getByRole("button", { name: "Try it out" }).click();
  await stream.getByPlaceholder("namespace").fill("default");
  await stream.getByPlaceholder("task", { exact: true }).fill("called-from-docs");
  await stream.getByRole("button", { name: "Execute" }).click();
  await stream.getByText("A stream does not end").first().waitFor();
  await stream.locator(".curl").getByText(":watch").first().waitFor();
  assert.deepEqual(foreign, []);
  await page.context().close();
});

test("the documentation fits a phone, and follows the theme of the system", async () => {
  const page = await signedIn({ colorScheme: "dark", viewport: { width: 360, height: 640 } });
  await page.keyboard.press("d");
  await page.locator("#operations-tag-Task").click();
  await page.locator("#operations-Task-getTask").getByRole("button").first().click();
  await page.getByText("Try it out").waitFor();
  await fits(page, "API");
  assert.equal(await page.locator("html.dark-mode").count(), 1);
  await page.emulateMedia({ colorScheme: "light" });
  await page.locator("html:not(.dark-mode)").waitFor();
  await page.emulateMedia({ colorScheme: "dark" });
  await page.locator("html.dark-mode").waitFor();
  // The theme of the library ends with its page.
  await page.getByRole("link", { name: "System" }).click();
  await page.locator("html:not(.dark-mode)").waitFor();
  await page.context().close();
});

nothingFailed();
