// Agents, their bounds and their problems, in a real browser.
import assert from "node:assert/strict";
import { test } from "node:test";
import { accessible, api, fits, nothingFailed, scripted, setUp, signedIn, until } from "./harness.mjs";

setUp();

const AGENT = "namespaces/default/agents/script";

test("an agent is scaled, suspended and continued", async () => {
  const page = await signedIn({ viewport: { width: 360, height: 640 } });
  await page.getByRole("link", { name: "Agents" }).click();
  const row = page.getByRole("region", { name: "Agents" }).locator("tr", { hasText: "script" });
  await row.getByRole("cell", { name: "0 to 2" }).waitFor();
  const dialog = page.getByRole("dialog");
  const scale = async (floor, ceiling) => {
    await page.getByRole("button", { name: "Scale script" }).click();
    await dialog.getByLabel("At least").fill(floor);
    await dialog.getByLabel("At most").fill(ceiling);
  };
  await scale("1", "3");
  await accessible(page, "scale");
  await fits(page, "scale");
  await page.keyboard.press("Enter");
  await row.getByRole("cell", { name: "1 to 3" }).waitFor();
  const { spec } = await api("GET", AGENT);
  assert.deepEqual([spec.replicas, spec.maxReplicas, spec.releaseWaitingAfter], [1, 3, "1s"]);
  await scale("4", "3");
  await dialog.getByRole("button", { name: "Scale" }).click();
  await page.getByRole("alert").filter({ hasText: "must not be below replicas" }).waitFor();
  await page.getByRole("button", { name: "Suspend script" }).click();
  await dialog.getByRole("button", { name: "Suspend" }).click();
  await row.getByRole("cell", { name: "suspended" }).waitFor();
  assert.ok(await page.getByRole("button", { name: "Suspend script" }).isDisabled());
  await row.locator("td:nth-child(2)", { hasText: /^0$/ }).waitFor();
  const name = await scripted("a patient one", [{ succeed: "done" }]);
  await row.locator("td:nth-child(4)", { hasText: /^1$/ }).waitFor();
  await scale("0", "1");
  await page.keyboard.press("Enter");
  await until(name, "TASK_STATE_SUCCEEDED");
  await page.context().close();
});

test("an agent whose workers do not start shows why", async () => {
  const spec = { runtime: { command: {} }, management: "MANAGEMENT_EXTERNAL" };
  await api("POST", "namespaces/default/agents?agentId=stuck", { spec });
  for (const colorScheme of ["light", "dark"]) {
    const page = await signedIn({ colorScheme, viewport: { width: 360, height: 640 } });
    await page.getByRole("link", { name: "Agents" }).click();
    const row = page.getByRole("region", { name: "Agents" }).locator("tr", { hasText: "stuck" });
    await row.getByRole("cell", { name: "external" }).waitFor();
    // As an operator reports it.
    const message = `no image ${colorScheme} <b>\u202e`;
    await api("POST", "namespaces/default/agents/stuck:report", { message });
    await row.getByText(`no image ${colorScheme} <b>[U+202E]`).waitFor();
    assert.equal(await page.getByRole("button", { name: "Scale stuck" }).count(), 0);
    await accessible(page, `a problem of an agent, ${colorScheme}`);
    await fits(page, "a problem of an agent");
    await page.context().close();
  }
});

nothingFailed();
