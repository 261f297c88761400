// A real `rota dev` with its workers, and a browser, for the tests of the control centre. Any violation of the content security
// policy, error of a page or dialog of a script fails the tests.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";

const ROTA = process.env.ROTA_BIN ?? "rota";
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
/** Built files of the control centre in place of those in the program, which then need not be built for each change of a page. */
const DIST = process.env.ROTA_CONSOLE_DIST;
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
};
/** Asks for a permission in place of the Claude Code CLI. */
const STAND_IN = join(import.meta.dirname, "permission-cli.mjs");
/** Limits of waits; only what is broken comes near them. */
const START_TIMEOUT = 180_000;
export const WAIT_TIMEOUT = 90_000;
export const folder = mkdtempSync(join(tmpdir(), "rota-console-"));
const environment = { PATH: process.env.PATH, HOME: folder };
const problems = [];
const servers = new Set();
export let base;
export let browser;
/** Path below which the control plane serves its pages. */
let path = "";
/** Further arguments of `rota dev`. */
let extra = [];
/** The Claude Code CLI of agents. */
let claude = STAND_IN;
/** Whether tests may intercept requests of pages. */
let mayIntercept = true;
/** Milliseconds by which calls of pages are late, at most, and by how much their scripts are slower then: tests that race fail. */
const LATE = Number(process.env.CONSOLE_LATE ?? 0);
const SLOWDOWN = 4;
let dev;

export const freePort = () =>
  new Promise((resolve) => {
    const server = createServer();
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });

export const run = (args, input) =>
  new Promise((resolve, reject) => {
    const child = spawn(ROTA, args, { env: environment, timeout: START_TIMEOUT });
    let output = "";
    let errors = "";
    child.stdout.on("data", (data) => (output += data));
    child.stderr.on("data", (data) => (errors += data));
    child.on("close", (code) =>
      code === 0 ? resolve(output) : reject(new Error(`${args.join(" ")}: ${output}${errors}`)),
    );
    child.stdin.end(input);
  });

const hasEnded = ({ exitCode, signalCode }) => exitCode !== null || signalCode !== null;

/** Starts a program that serves the control centre, and waits until it does: until `answers` returns the status 200. */
export async function serve(args, url, answers = async () => (await fetch(url)).status) {
  const child = spawn(ROTA, args, { env: environment });
  servers.add(child);
  let errors = "";
  child.stderr.on("data", (data) => (errors = (errors + data).slice(-4000)));
  child.stdout.resume();
  const end = Date.now() + START_TIMEOUT;
  for (;;) {
    if ((await answers().catch(() => undefined)) === 200) {
      return child;
    }
    if (hasEnded(child) || Date.now() > end) {
      throw new Error(`${args.join(" ")} does not serve: ${errors}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export async function stop(child, signal = "SIGTERM") {
  if (servers.delete(child) && !hasEnded(child)) {
    const ended = new Promise((resolve) => child.once("close", resolve));
    child.kill(signal);
    await ended;
  }
}

export async function start() {
  const listen = new URL(base).host;
  const args = ["--listen", listen, "--data-dir", join(folder, "data"), "--claude-program", claude];
  dev = await serve(["dev", ...args, ...extra], base);
}

/** Processor seconds that the control plane has used, and the bytes of memory that it has. */
export function usage() {
  const stat = readFileSync(`/proc/${dev.pid}/stat`, "utf8").split(") ")[1].split(" ");
  // Fields 14, 15 and 24 of proc(5), in ticks of a hundredth of a second and pages of 4 KiB.
  return { seconds: (Number(stat[11]) + Number(stat[12])) / 100, bytes: Number(stat[21]) * 4096 };
}

export const kill = () => stop(dev, "SIGKILL");

/** Gives the control plane another token: all windows are signed out. */
export async function newToken() {
  await kill();
  writeFileSync(join(folder, "data/token"), randomBytes(32).toString("hex"));
  await start();
}

export const adminToken = () => readFileSync(join(folder, "data/token"), "utf8").trim();

/** Makes a call of the HTTP API. */
export async function api(method, path, body) {
  const response = await fetch(`${base}/api/v1/${path}`, {
    method,
    headers: { Authorization: `Bearer ${adminToken()}`, "Content-Type": "application/json" },
    body: body && JSON.stringify(body),
  });
  assert.ok(response.ok, `${method} ${path}: ${response.status}`);
  return response.json();
}

/** Addresses that are no pages: calls, and sign-in at an issuer. */
const NO_PAGE = /^\/(api|sign-in|authorize)(\/|$)/;

/** Returns the path of an address as the program sees it. */
const seen = ({ pathname }) => (pathname.startsWith(`${path}/`) ? pathname.slice(path.length) : pathname);

/** Serves the pages of a context from the built files, as the program does: under its policy, and with its nonce in the page. */
async function serveBuilt(context) {
  const policy = (await fetch(base)).headers.get("content-security-policy");
  const [, nonce = ""] = /'nonce-([^']+)'/.exec(policy) ?? [];
  const page = readFileSync(join(DIST, "index.html"), "utf8")
    .replaceAll('"./', `"${path}/`)
    .replaceAll("ROTA_NONCE", nonce);
  await context.route(
    (url) => !NO_PAGE.test(seen(url)),
    async (route) => {
      const pathname = seen(new URL(route.request().url()));
      const named = join(DIST, pathname);
      const isFile = extname(pathname) && existsSync(named);
      const type = isFile ? TYPES[extname(named)] : TYPES[".html"];
      const headers = { "Content-Type": type, "Content-Security-Policy": policy };
      await route.fulfill({ body: isFile ? readFileSync(named) : page, headers });
    },
  );
}

/** An address that no page asks for. */
const UNUSED = /^about:unused$/;

/** A page whose problems fail the tests. */
export async function newPage(context) {
  if (context.pages().length === 0) {
    // Also for pages that the pages open.
    context.setDefaultTimeout(WAIT_TIMEOUT);
    if (mayIntercept) {
      // Chromium may send a request past a page's first route that is set after the page was loaded: the context has one from the
      // start. A route has each request pass through this process, switches off the browser's cache, and has Playwright answer
      // preflight requests (CORS) by itself.
      await context.route(UNUSED, (route) => route.abort());
    }
    if (LATE > 0) {
      await context.route(/\/api\//, async (route) => {
        await new Promise((resolve) => setTimeout(resolve, Math.random() * LATE));
        await route.fallback().catch(() => {});
      });
    }
    if (DIST) {
      await serveBuilt(context);
    }
  }
  const page = await context.newPage();
  if (LATE > 0) {
    const protocol = await context.newCDPSession(page);
    await protocol.send("Emulation.setCPUThrottlingRate", { rate: SLOWDOWN });
  }
  page.on("pageerror", (error) => problems.push(`error: ${error}`));
  page.on("dialog", (dialog) => {
    problems.push(`dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on("console", (message) => {
    if (/content security policy/i.test(message.text())) {
      problems.push(message.text());
    }
  });
  return page;
}

/** A page that has signed in by the link of `rota ui`. */
export async function signedIn(options = {}) {
  return signIn(await browser.newContext({ locale: "en-US", ...options }));
}

/** A further tab of a browser that has signed in. */
export async function signIn(context) {
  const page = await newPage(context);
  await page.goto((await run(["ui"])).trim());
  await tasksShown(page);
  return page;
}

/** Waits until the list of tasks is shown, and its page receives keys. */
export async function tasksShown(page) {
  await page.getByRole("heading", { name: "Tasks" }).waitFor();
  // The title is set after the listeners of keys, which are later than the heading.
  await page.waitForFunction(() => document.title.endsWith("Tasks · Rota"));
}

/** Waits until a page has done what follows what it shows: its keys know the rows then. */
export const settled = (page) =>
  page.evaluate(() => new Promise((done) => requestAnimationFrame(() => setTimeout(done))));

/**
 * Signs out by the button of a page, and waits until this and the other windows of its browser have removed what they showed: the end
 * of its streams may hide it before the call is answered.
 */
export async function signOut(page, ...others) {
  await page.getByRole("button", { name: "Sign out" }).click();
  for (const one of [page, ...others]) {
    await one.locator("#main").waitFor({ state: "detached" });
  }
}

/** A promise, and what ends it. */
export function latch() {
  let end;
  const ended = new Promise((resolve) => {
    end = resolve;
  });
  return [ended, end];
}

/** Holds the calls of a page to an address until they are released. `held` ends once the first one waits. */
export async function hold(page, address) {
  const [held, arrived] = latch();
  const [released, release] = latch();
  await page.route(address, async (route) => {
    arrived();
    await released;
    await route.continue();
  });
  return { held, release };
}

/** The editor of a specification. */
export const editorOf = (page) => page.getByRole("textbox", { name: "Specification, in YAML" });

/** What an editor, which is loaded later than its page, shows of its text: all of one that is short. */
export async function textOf(editor) {
  const lines = editor.locator(".cm-line");
  await lines.first().waitFor();
  return (await lines.allTextContents()).join("\n");
}

/** Presses of the Tab key that reach everything of a page. */
const MAX_TABS = 300;

/** Moves the focus to a control by the Tab key alone. */
export async function tabTo(page, control) {
  for (let count = 0; count < MAX_TABS; count += 1) {
    if (await control.evaluate((element) => element === document.activeElement)) {
      return;
    }
    await page.keyboard.press("Tab");
  }
  assert.fail(`the Tab key does not reach ${control}`);
}

/** The two ways to use a page: `press` a button or link, `type` into a field, `choose` a value of a list. */
export const WAYS = {
  keyboard: {
    press: async (page, control) => {
      await control.waitFor();
      await tabTo(page, control);
      await page.keyboard.press("Enter");
    },
    type: async (page, field, text) => {
      await field.waitFor();
      await tabTo(page, field);
      await page.keyboard.type(text);
    },
    choose: async (page, list, value) => {
      await list.waitFor();
      await tabTo(page, list);
      const count = await list.locator("option").count();
      for (const key of ["ArrowUp", "ArrowDown"]) {
        for (let step = 0; step < count && (await list.inputValue()) !== value; step += 1) {
          await page.keyboard.press(key);
        }
      }
      assert.equal(await list.inputValue(), value);
    },
  },
  pointer: {
    press: (_page, control) => control.click(),
    type: async (page, field, text) => {
      await field.click();
      await page.keyboard.type(text);
    },
    choose: (_page, list, value) => list.selectOption(value),
  },
};

/** Takes a tab out of view: the browser of the tests has no windows that could cover each other. */
export const setVisible = (page, isVisible) =>
  page.evaluate((isVisible) => {
    Object.defineProperty(document, "visibilityState", {
      value: isVisible ? "visible" : "hidden",
      configurable: true,
    });
    Object.defineProperty(document, "hidden", { value: !isVisible, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  }, isVisible);

/** Waits for the title of a page, which follows what the page shows. */
export const titled = (page, title) => page.waitForFunction((title) => document.title === title, title);

/** Waits for the number of what waits for a person in the title of a page. */
export const hasWaiting = (page, count) =>
  page.waitForFunction(
    (count) => (/^\(([0-9]+)\) /.exec(document.title)?.[1] ?? "0") === String(count),
    count,
  );

/** Makes a page note, from its next load on, whether a stream of it is live, and the tasks that this brings. */
export const noteStream = (page, kind = "tasks") =>
  // Messages for other windows: what changes before the stream is live is not among them.
  page.addInitScript((kind) => {
    window.received = [];
    new BroadcastChannel(`rota.${kind}.default`).onmessage = ({ data }) => {
      window.isLive ||= data.link?.state === "live";
      window.received.push(...(data.message?.task ? [data.message.task] : []));
    };
  }, kind);

/** Waits until the stream that a page notes is live. */
export const isLive = (page) => page.waitForFunction(() => window.isLive);

/** Waits until the stream that a page notes has brought a task with a title, in a state if one is given. */
export const receives = (page, title, state) =>
  page.waitForFunction(
    ([title, state]) =>
      window.received.some(
        ({ spec, status }) => spec?.title === title && (state === null || status?.state === state),
      ),
    [title, state ?? null],
  );

/** Loads the page of a list again, and waits until it has read all that it does by itself: what changes then its stream brings. */
export async function follow(page, kind = "tasks") {
  await noteStream(page, kind);
  await page.reload();
  await isLive(page);
  // Once when the list is opened, and once when its stream is.
  await page.waitForFunction(
    (list) => performance.getEntriesByType("resource").filter(({ name }) => name.endsWith(list)).length >= 2,
    `/${kind}?pageSize=100`,
  );
}

/** Waits for something new in a list, where it may wait for a click, unless the list is read again by itself. */
export async function show(page, title) {
  const link = page.getByRole("link", { name: title });
  const fresh = page.getByRole("button", { name: /Show [0-9]+ new/ });
  for (const end = Date.now() + WAIT_TIMEOUT; !(await link.isVisible()); ) {
    assert.ok(Date.now() < end, `${title} is not listed`);
    await link.or(fresh).first().waitFor();
    if ((await fresh.isVisible()) && !(await link.isVisible())) {
      // The list may have it meanwhile. A tab behind another one draws about once a second, and a click waits for two frames.
      await fresh.click({ timeout: 5000 }).catch(() => {});
    }
  }
}

/** Checks a page by all rules of axe but those that are off. */
export async function accessible(page, where, off = []) {
  const rules = Object.fromEntries(off.map((rule) => [rule, { enabled: false }]));
  const options = JSON.stringify({ resultTypes: ["violations"], rules });
  const found = await page.evaluate(`${AXE}; axe.run(document, ${options})`);
  assert.deepEqual(
    found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" ")}`),
    [],
    where,
  );
}

export async function fits(page, where) {
  const [content, window] = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]");
  assert.ok(content <= window, `${where}: ${content} px in a window of ${window}`);
}

export const shell = (line, ...more) =>
  run(["run", "--detach", "--agent", "shell", ...more, "--command", "--", "sh", "-c", line]);

/** Creates a task of the scripted agent, and returns its name. */
export async function scripted(title, steps, spec = {}) {
  const runtime = { scripted: { steps } };
  const task = { spec: { title, target: { agent: "script" }, runtime, ...spec } };
  return (await api("POST", "namespaces/default/tasks", task)).name;
}

/** Mebibytes that a worker logs of one attempt of a command, with room for its last line. */
const ATTEMPT_MIB = 15.875;

/** Creates a task whose log has as many mebibytes, of several attempts, and returns its name. Its last line is `the end`. */
export async function longLog(title, mebibytes) {
  const attempts = Math.ceil(mebibytes / ATTEMPT_MIB);
  const rows = Math.floor((Math.min(mebibytes, ATTEMPT_MIB) * 2 ** 20) / 31);
  const print = `seq -f 'row %015g of the log' 1 ${rows}`;
  const spec = {
    title,
    target: { agent: "shell" },
    retry: { maxAttempts: attempts, initialBackoff: "0.001s", maxBackoff: "0.001s" },
    runtime: {
      command: {
        shell: `echo "attempt $ROTA_ATTEMPT"; ${print}; test $ROTA_ATTEMPT = ${attempts} && echo the end`,
      },
    },
  };
  return (await api("POST", "namespaces/default/tasks", { spec })).name;
}

/** Waits until a task or workflow has a state. */
export async function until(name, state, timeout = START_TIMEOUT) {
  const end = Date.now() + timeout;
  for (;;) {
    const { status } = await api("GET", name);
    if (status.state === state) {
      return status;
    }
    assert.ok(Date.now() < end, `${name} is ${status.state}, not ${state}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/**
 * Starts everything before the tests of a file, and ends it after them: with arguments of `rota dev`, the path that they give it, and
 * the real Claude Code CLI, if the file needs that. Where requests are measured, none may be intercepted.
 */
export function setUp(options = {}) {
  ({ args: extra = [], path = "", claude = STAND_IN, mayIntercept = true } = options);
  before(async () => {
    base = `http://127.0.0.1:${await freePort()}`;
    mkdirSync(join(folder, "work"));
    await start();
    writeFileSync(
      join(folder, "agents.yaml"),
      `apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: shell}
spec: {runtime: {command: {}}, maxReplicas: 2}
---
apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: script}
spec: {runtime: {scripted: {}}, maxReplicas: 2, releaseWaitingAfter: 1s}
`,
    );
    await run(["apply", "-f", join(folder, "agents.yaml")]);
    browser = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      args: process.getuid() === 0 ? ["--no-sandbox"] : [],
    });
  });
  after(async () => {
    await browser?.close();
    await Promise.all([...servers].map((server) => stop(server)));
    // What workers have started may still write there.
    rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  });
}

/** The last test of a file. */
export function nothingFailed() {
  test("nothing was forbidden or failed meanwhile", () => {
    assert.deepEqual(problems, []);
  });
}

/** Length of a day, and what a test of a day's costs needs of it at most, in milliseconds. */
const DAY = 86_400_000;
const REST_OF_DAY = 180_000;

/** Waits for the next day of UTC, with which what was spent in a day begins again, if the current one ends soon. */
export async function awayFromMidnight() {
  for (const day = Math.floor((Date.now() + REST_OF_DAY) / DAY); Math.floor(Date.now() / DAY) < day; ) {
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

/** Waits until something is true. */
export async function eventually(isTrue, what) {
  for (const end = Date.now() + WAIT_TIMEOUT; !(await isTrue()); ) {
    assert.ok(Date.now() < end, what);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
