// The control centre under load, measured and not judged: 100 open pages while tasks are created, with few tasks and with many, then
// many tasks, a long log, a large graph. Of the pages one is in a browser; the others are the streams and the readings of a page, made
// by this process.
import { test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import {
  adminToken,
  api,
  base,
  browser,
  longLog,
  scripted,
  setUp,
  signedIn,
  signIn,
  until,
  usage,
} from "../tests/harness.mjs";

const number = (name, otherwise) => Number(process.env[name] ?? otherwise);
const PAGES = number("PAGES", 100);
const PER_MINUTE = number("TASKS_PER_MINUTE", 1000);
const SECONDS = number("SECONDS_OF_LOAD", 30);
const TASKS = number("TASKS", 100_000);
const STEPS = number("STEPS", 10_000);
const LOG_MIB = number("LOG_MIB", 1016);
/** Times at which the first page is opened, each by a browser that has nothing of it. */
const OPENINGS = 5;

setUp({ mayIntercept: false });

const at = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
const mib = (bytes) => `${Math.round(bytes / 2 ** 20)} MiB`;

function report(what, values) {
  const sorted = values.toSorted((one, other) => one - other);
  const [p50, p95, most] = [at(sorted, 0.5), at(sorted, 0.95), sorted.at(-1)].map((value) =>
    Math.round(value),
  );
  console.log(`${what}: p50 ${p50} ms, p95 ${p95} ms, most ${most} ms, of ${sorted.length}`);
}

/** Creates tasks at an even rate, and calls `each` meanwhile. */
async function load(each = async () => {}) {
  const task = { spec: { title: "load", target: { agent: "missing" } } };
  const begin = Date.now();
  const before = usage();
  let created = 0;
  const creating = (async () => {
    const calls = [];
    while (Date.now() - begin < SECONDS * 1000) {
      for (const due = ((Date.now() - begin) * PER_MINUTE) / 60_000; created < due; created += 1) {
        calls.push(api("POST", "namespaces/default/tasks", task));
      }
      await pause(20);
    }
    await Promise.all(calls);
  })();
  let isOver = false;
  const measuring = (async () => {
    while (!isOver) {
      await each();
      await pause(500);
    }
  })();
  await creating;
  isOver = true;
  await measuring;
  const after = usage();
  const seconds = (Date.now() - begin) / 1000;
  const share = ((after.seconds - before.seconds) / seconds) * 100;
  console.log(
    `  ${created} tasks in ${Math.round(seconds)} s; server: ${Math.round(share)} % of a processor, ${mib(after.bytes)}`,
  );
}

/** Returns the time from an entry of the browser's performance timeline, in milliseconds, once there is one. */
async function entry(page, name, field) {
  await page.waitForFunction((name) => performance.getEntriesByName(name).length > 0, name);
  return page.evaluate(([name, field]) => performance.getEntriesByName(name).at(-1)[field], [name, field]);
}

/** Returns the path of a column of the board. */
function column(...states) {
  return `tasks?pageSize=100${states.map((state) => `&filter.states=TASK_STATE_${state}`).join("")}`;
}

/** Streams and readings of every page: once, or again after a time in milliseconds. Decision 0083 has the reasons. */
const EVERY_PAGE = {
  streams: ["tasks:watch?statesOnly=true", "workflows:watch"],
  reads: [
    ["alerts", 30_000],
    ["tasks?pageSize=100&filter.openQuestions=true"],
    ["tasks?pageSize=100&filter.needsAttention=true"],
    ["tasks?pageSize=100&filter.deadLetters=true&filter.failureClasses=FAILURE_CLASS_CHECKS"],
    ["approvals?pageSize=200"],
  ],
};
/** Those that each kind of page adds while tasks are created. */
const KINDS = [
  { streams: [], reads: [["tasks?pageSize=100"]] },
  {
    streams: ["agents:watch", "agents:watchDemand?differences=true"],
    reads: [
      ["agents?pageSize=200", 10_000],
      ["workers?pageSize=200", 10_000],
    ],
  },
  {
    streams: [],
    reads: [
      ["spending", 60_000],
      ["budgets?pageSize=200", 5_000],
    ],
  },
  {
    streams: [],
    reads: [
      // The column of waiting tasks grows to twice its page in this time.
      [column("PENDING", "QUEUED"), 6_000],
      ...[["ASSIGNED", "RUNNING"], ["INPUT_REQUIRED"], ["SUCCEEDED"], ["FAILED"], ["CANCELLED"]].map(
        (states) => [column(...states), 60_000],
      ),
    ],
  },
];

/** Reads what a page reads until it is closed. Returns how long each reading took, in milliseconds. */
function read(kind, index, signal, failed) {
  const times = [];
  const headers = { Authorization: `Bearer ${adminToken()}` };
  for (const [path, interval] of [...EVERY_PAGE.reads, ...kind.reads]) {
    const again = async () => {
      // The readings of pages that are repeated are spread over their interval.
      for (let wait = (interval * (index % 10)) / 10; ; wait = interval) {
        const begin = performance.now();
        const response = await fetch(`${base}/api/v1/namespaces/default/${path}`, { headers, signal });
        await response.arrayBuffer();
        if (!response.ok) {
          throw new Error(`${path}: ${response.status}`);
        }
        times.push(performance.now() - begin);
        if (!interval) {
          return;
        }
        await pause(wait, undefined, { signal });
      }
    };
    again().catch(failed);
  }
  return times;
}

/** Opens the streams of a page. Returns the ages at which events arrived, in milliseconds. */
function watch(kind, signal, failed) {
  const ages = [];
  for (const path of [...EVERY_PAGE.streams, ...kind.streams]) {
    const headers = { Accept: "text/event-stream", Authorization: `Bearer ${adminToken()}` };
    fetch(`${base}/api/v1/namespaces/default/${path}`, { headers, signal })
      .then(async ({ ok, status, body }) => {
        if (!ok) {
          throw new Error(`${path}: ${status}`);
        }
        let rest = "";
        for await (const part of body.pipeThrough(new TextDecoderStream())) {
          const now = Date.now();
          const lines = (rest + part).split("\n");
          rest = lines.pop();
          for (const line of lines.filter((line) => line.startsWith("data:"))) {
            for (const { time } of JSON.parse(line.slice(5)).events ?? []) {
              ages.push(now - Date.parse(time));
            }
          }
        }
      })
      .catch(failed);
  }
  return ages;
}

/** Measures a page once it is complete: since its opening, how many frames a second it shows, and its heap. */
async function measure(page, what, complete, act = async () => {}) {
  const begin = Date.now();
  await complete();
  const first = Date.now() - begin;
  const counted = page.evaluate(
    () =>
      new Promise((resolve) => {
        const begin = performance.now();
        let frames = 0;
        const next = (now) => {
          frames += 1;
          if (now - begin < 2000) {
            requestAnimationFrame(next);
          } else {
            resolve((frames * 1000) / (now - begin));
          }
        };
        requestAnimationFrame(next);
      }),
  );
  await act();
  const frames = Math.round(await counted);
  const session = await page.context().newCDPSession(page);
  const { usedSize } = await session.send("Runtime.getHeapUsage");
  console.log(`${what}: complete after ${first} ms, ${frames} frames/s, heap ${mib(usedSize)}`);
}

test("the first page", { timeout: 600_000 }, async () => {
  const paints = [];
  for (let opening = 0; opening < OPENINGS; opening += 1) {
    const page = await signedIn();
    paints.push(await entry(page, "first-contentful-paint", "startTime"));
    await page.context().close();
  }
  report("first contentful paint of the first page", paints);
});

/** Measures pages that are open while tasks are created. */
async function openPages(title) {
  console.log("no page:");
  await load();
  const abort = new AbortController();
  const { signal } = abort;
  const problems = [];
  const failed = (error) => signal.aborted || problems.push(error);
  const kinds = Array.from({ length: PAGES - 1 }, (_, index) => KINDS[index % KINDS.length]);
  const others = [];
  const reads = [];
  // In turn, as people open them: of one address only 256 connections may wait for their first call.
  for (const [index, kind] of kinds.entries()) {
    others.push(watch(kind, signal, failed));
    reads.push(read(kind, index, signal, failed));
    await pause(100);
  }
  const page = await signedIn();
  const name = await scripted(title, [], { target: { agent: "missing" } });
  await page.goto(`${base}/tasks?owner=&alias=`);
  const row = page.locator("tr", { hasText: title });
  await row.waitFor();
  const updates = [];
  const calls = [];
  let priority = 0;
  console.log(`${PAGES} pages:`);
  await load(async () => {
    priority = (priority % 9) + 1;
    // The time at which the page has changed, by the clock of this machine.
    const changed = row.evaluate(
      (row, wanted) =>
        new Promise((resolve) => {
          const seen = () => row.cells[4]?.textContent === wanted && resolve(Date.now());
          new MutationObserver(seen).observe(row, { subtree: true, characterData: true, childList: true });
          seen();
        }),
      String(priority),
    );
    const begin = Date.now();
    await api("PATCH", `${name}?updateMask=priority`, { name, priority });
    calls.push(Date.now() - begin);
    updates.push((await changed) - begin);
  });
  abort.abort();
  if (problems.length > 0) {
    throw new AggregateError(problems, "the other pages have failed");
  }
  report("update of a row in the page, from the call", updates);
  report("  the call alone, until its answer", calls);
  report("events at the other pages, from their time", others.flat());
  report("readings of the other pages", reads.flat());
  await page.context().close();
}

test("pages that are open while tasks are created", { timeout: 600_000 }, () => openPages("measured first"));

test("a page of many tasks", { timeout: 1_800_000 }, async () => {
  const requests = Array.from({ length: 1000 }, (_, index) => ({
    task: { spec: { title: `one of many ${index}`, target: { agent: "missing" } } },
  }));
  for (let count = 0; count < TASKS; count += requests.length) {
    await api("POST", "namespaces/default/tasks:batchCreate", { requests });
  }
  const page = await signedIn();
  await page.goto(`${base}/agents`);
  await measure(page, `list of ${TASKS} tasks`, async () => {
    await page.goto(`${base}/tasks`);
    await page.getByRole("link", { name: "one of many" }).first().waitFor();
  });
  await page.context().close();
});

test("pages that are open while tasks are created, with many", { timeout: 1_200_000 }, async () => {
  console.log(`with ${TASKS} tasks:`);
  await openPages("measured again");
});

test("a page of a long log", { timeout: 1_800_000 }, async () => {
  const name = await longLog("long", LOG_MIB);
  const { logSeq } = await until(name, "TASK_STATE_SUCCEEDED", 1_200_000);
  console.log(`log of ${LOG_MIB} MiB: ${logSeq} entries`);
  const page = await signedIn();
  const log = page.getByRole("region", { name: "Log" });
  await measure(
    page,
    `log of ${LOG_MIB} MiB, to its end`,
    async () => {
      await page.goto(`${base}/tasks/default/${name.split("/").at(-1)}`);
      await log.getByText("the end", { exact: true }).waitFor({ timeout: 600_000 });
    },
    async () => {
      for (let turn = 0; turn < 10; turn += 1) {
        await log.hover();
        await page.mouse.wheel(0, -3000);
        await pause(150);
      }
    },
  );
  // What the page has not read: its first line, found by the server.
  await measure(page, `first line of it, by a search`, async () => {
    await page.getByLabel("Find in the log").fill("attempt 1");
    await page.getByRole("button", { name: "Search all of it" }).click();
    await log.locator(".line.hit").getByText("attempt 1", { exact: true }).waitFor({ timeout: 600_000 });
  });
  await page.context().close();
});

test("a page of a large graph", { timeout: 600_000 }, async () => {
  const steps = Array.from({ length: STEPS }, (_, index) => ({
    name: `step-${index}`,
    // Layers of a hundred, each step with three needs.
    needs:
      index < 100
        ? []
        : [0, 37, 71].map((shift) => ({
            step: `step-${index - 100 - (index % 100) + ((index + shift) % 100)}`,
          })),
    approval: { prompt: "Go on?" },
  }));
  const { name } = await api("POST", "namespaces/default/workflows", { spec: { title: "large", steps } });
  const page = await signIn(await browser.newContext({ viewport: { width: 1280, height: 720 } }));
  const graph = page.getByRole("img", { name: `Graph of ${STEPS} steps` });
  await measure(
    page,
    `graph of ${STEPS} steps`,
    async () => {
      await page.goto(`${base}/workflows/default/${name.split("/").at(-1)}`);
      await graph.waitFor();
      await page.getByRole("region", { name: "Steps" }).locator("tbody tr").first().waitFor();
      const layout = await entry(page, "rota.graph.layout", "duration");
      const paint = await entry(page, "rota.graph.first-paint", "duration");
      console.log(
        `graph of ${STEPS} steps: layout ${Math.round(layout)} ms, drawn first after ${Math.round(paint)} ms`,
      );
    },
    async () => {
      await graph.focus();
      await page.keyboard.press("+");
      for (let turn = 0; turn < 20; turn += 1) {
        await page.keyboard.press(turn % 2 ? "ArrowLeft" : "ArrowRight");
        await pause(50);
      }
    },
  );
  await page.context().close();
});
