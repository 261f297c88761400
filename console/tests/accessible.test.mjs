// Every page in both themes, on a phone and with a zoom of 200 %, in a real browser.
import assert from "node:assert/strict";
import { test } from "node:test";
import { accessible, api, base, fits, nothingFailed, scripted, setUp, signedIn, until } from "./harness.mjs";

setUp();

const WINDOWS = {
  "on a phone": { viewport: { width: 360, height: 640 } },
  // A window of 1280 by 720 pixels: at 200 % each pixel of a page takes four.
  "at 200 %": { viewport: { width: 640, height: 360 }, deviceScaleFactor: 2 },
};

/** Fills the pages, and returns where each is and what shows that it is complete. */
async function pages() {
  const long = "a-title-without-any-blank-".repeat(6);
  const usage = { usage: { costMicroUsd: 1_500_000, inputTokens: 100 } };
  const done = await scripted(long, [{ output: "hello\n" }, usage, { succeed: "done" }]);
  await until(done, "TASK_STATE_SUCCEEDED");
  const asking = await scripted("an asking one", [{ ask: "Which way?" }]);
  const waiting = await scripted("a waiting one", [], { target: { agent: "missing" } });
  const retry = { maxAttempts: 1 };
  const failed = await scripted("a failed one", [{ fail: { message: "no luck" } }], { retry });
  await until(failed, "TASK_STATE_FAILED");
  const steps = [
    { name: "look", approval: { prompt: "Is it good?" } },
    { name: "wait", needs: [{ step: "look" }], approval: { prompt: "And now?" } },
  ];
  const { name } = await api("POST", "namespaces/default/workflows", { spec: { title: long, steps } });
  const task = { spec: { target: { agent: "script" }, runtime: { scripted: { steps: [] } } } };
  const schedule = { spec: { cron: "0 3 * * *", timeZone: "Europe/Berlin", task } };
  await api("POST", "namespaces/default/schedules?scheduleId=nightly", schedule);
  const id = (name) => name.split("/").at(-1);
  return {
    inbox: (page) => page.getByText("Which way?"),
    tasks: (page) => page.getByRole("link", { name: "an asking one" }),
    "tasks?view=board": (page) => page.getByRole("link", { name: "an asking one" }),
    [`tasks/default/${id(done)}`]: (page) => page.getByRole("region", { name: "Log" }),
    [`tasks/default/${id(asking)}`]: (page) => page.getByText("Which way?"),
    [`tasks/default/${id(waiting)}`]: (page) => page.getByRole("region", { name: "Why it does not run" }),
    [`tasks/default/${id(failed)}`]: (page) => page.getByRole("region", { name: "Failure" }),
    workflows: (page) => page.getByRole("link", { name: long }),
    [`workflows/default/${id(name)}`]: (page) => page.getByRole("img", { name: "Graph of 2 steps" }),
    agents: (page) => page.getByRole("cell", { name: "script", exact: true }),
    schedules: (page) => page.getByText("Europe/Berlin"),
    costs: (page) => page.getByRole("region", { name: "By model" }),
    alerts: (page) => page.getByText("Nothing is wrong."),
    metrics: (page) => page.locator("canvas"),
    "metrics?view=table": (page) => page.getByRole("region", { name: "Values" }),
    system: (page) => page.getByRole("region", { name: "Background tasks" }),
  };
}

test("every page is accessible and fits, in both themes, on a phone and at 200 %", async () => {
  const all = await pages();
  for (const colorScheme of ["light", "dark"]) {
    for (const [window, options] of Object.entries(WINDOWS)) {
      const page = await signedIn({ colorScheme, ...options });
      for (const [path, complete] of Object.entries(all)) {
        await page.goto(`${base}/${path}`);
        await complete(page).first().waitFor();
        await accessible(page, `${path}, ${colorScheme}, ${window}`);
        await fits(page, `${path}, ${window}`);
      }
      await page.context().close();
    }
  }
});

test("the navigation leaves most of a small window to the page", async () => {
  // A window of 1100 by 560 pixels at 200 %.
  const page = await signedIn({ viewport: { width: 550, height: 280 }, deviceScaleFactor: 2 });
  const { height } = await page.getByRole("banner").boundingBox();
  assert.ok(height < 280 / 2, `${height} px`);
  await page.context().close();
});

nothingFailed();
