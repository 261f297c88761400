// The documentation of the HTTP API, from which calls are made, in a real browser.
import assert from "node:assert/strict";
import { test } from "node:test";
import { accessible, api, base, fits, nothingFailed, setUp, signedIn } from "./harness.mjs";

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

test("the documentation is accessible in both themes, but for the library's own main part", async () => {
  // The library renders a `main` of its own, to which no other role may be given.
  const off = ["landmark-main-is-top-level", "landmark-no-duplicate-main", "landmark-unique"];
  const page = await signedIn({ colorScheme: "light" });
  await page.keyboard.press("d");
  for (const tag of ["Admin", "Agent", "Task"]) {
    await page.locator(`#operations-tag-${tag}`).click();
  }
  const open = async (operation) => {
    const call = page.locator(`#operations-${operation}`);
    await call.getByRole("button").first().click();
    await call.getByRole("button", { name: "Try it out" }).click();
    return call;
  };
  // Each method, with what is filled in, refused and answered.
  for (const operation of ["Admin-setNamespaceBudget", "Agent-deleteAgent", "Task-updateTask"]) {
    await open(operation);
  }
  const get = await open("Task-getTask");
  await get.getByRole("button", { name: "Execute" }).click();
  await get.locator("input.invalid").first().waitFor();
  const list = await open("Agent-listAgents");
  await list.getByPlaceholder("namespace").fill("default");
  await list.getByRole("button", { name: "Execute" }).click();
  await list.locator(".live-responses-table pre").first().waitFor();
  const create = await open("Task-createTask");
  await create.getByRole("textbox", { name: "Request body" }).waitFor();
  await create.getByRole("combobox", { name: "validateOnly" }).waitFor();
  await create.getByRole("tab", { name: "Schema" }).first().click();
  await create.getByRole("button", { name: "spec", exact: true }).first().click();
  await create.locator("[data-json-schema-level='2']").first().waitFor();
  const tasks = page.locator("#operations-Task-listTasks");
  await tasks.getByRole("button").first().click();
  await tasks.getByRole("tab", { name: "Schema" }).first().click();
  await tasks.getByRole("button", { name: "Schema", exact: true }).waitFor();
  // Colours change in steps.
  const settled = () =>
    page.evaluate(() => Promise.allSettled(document.getAnimations().map(({ finished }) => finished)));
  await settled();
  await accessible(page, "API, light", off);
  await page.emulateMedia({ colorScheme: "dark" });
  await page.locator("html.dark-mode").waitFor();
  await settled();
  await accessible(page, "API, dark", off);
  await page.context().close();
});

nothingFailed();
