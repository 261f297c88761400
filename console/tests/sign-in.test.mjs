// Ways in and out, in a real browser.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { get } from "node:https";
import { join } from "node:path";
import { test } from "node:test";
import {
  accessible,
  adminToken,
  api,
  base,
  browser,
  editorOf,
  eventually,
  fits,
  folder,
  freePort,
  kill,
  newPage,
  nothingFailed,
  run,
  scripted,
  serve,
  setUp,
  shell,
  show,
  signedIn,
  signOut,
  start,
  stop,
  textOf,
  until,
} from "./harness.mjs";

setUp();

/** Returns the status of a page over HTTPS. */
const status = (url, options) =>
  new Promise((resolve, reject) => {
    const request = get(url, options, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    request.on("error", reject);
  });

/** Ends the session of a page behind its back. */
async function revoke(page) {
  const own = "fetch('/api/v1/browserSessions/current').then((response) => response.json())";
  await api("POST", `${(await page.evaluate(own)).name}:revoke`, {});
}

test("a link signs in once and has no token", async () => {
  const link = (await run(["ui"])).trim();
  assert.ok(!link.includes(adminToken()));
  const context = await browser.newContext();
  const page = await newPage(context);
  await page.goto(link);
  await page.getByRole("heading", { name: "Tasks" }).waitFor();
  assert.equal(new URL(page.url()).hash, "");
  // Who is signed in already stays so, in every window and after a reload.
  const other = await newPage(context);
  await other.goto(link);
  await other.getByRole("heading", { name: "Tasks" }).waitFor();
  await other.reload();
  await other.getByRole("heading", { name: "Tasks" }).waitFor();
  await context.close();
  const stranger = await newPage(await browser.newContext());
  await stranger.goto(link);
  await stranger.getByRole("alert").filter({ hasText: "used before" }).waitFor();
  await stranger.getByLabel("Token").waitFor();
  await stranger.context().close();
});

test("no script and no other site can use a session", async () => {
  const page = await signedIn();
  const [cookie] = await page.context().cookies(`${base}/api/v1/`);
  assert.deepEqual([cookie.httpOnly, cookie.sameSite], [true, "Strict"]);
  assert.equal(cookie.name, `rota-session-${new URL(base).port}`);
  assert.equal(await page.evaluate("document.cookie"), "");
  assert.equal(await page.evaluate("localStorage.length + sessionStorage.length"), 0);
  // Browsers send it with the calls of other programs on the same host, which are refused.
  const { origin } = new URL(base);
  const server = createServer((_, response) => response.setHeader("Content-Type", "text/html").end("<p>"));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const foreign = await page.context().newPage();
  await foreign.route(`http://127.0.0.1:${server.address().port}/`, (route) => route.continue());
  await foreign.goto(`http://127.0.0.1:${server.address().port}/`);
  const refused = foreign.waitForResponse((response) => response.url().includes("/api/v1/"));
  const sent = foreign.waitForRequest((request) => request.url().includes("/api/v1/"));
  const forge = `fetch("${origin}/api/v1/namespaces/default/tasks/none:cancel",
    { method: "POST", mode: "no-cors", credentials: "include" })`;
  await foreign.evaluate(forge);
  assert.match((await (await sent).allHeaders()).cookie ?? "", /rota-session-/);
  assert.equal((await refused).status(), 403);
  server.close();
  await page.context().close();
});

test("a session that is revoked is explained", async () => {
  const page = await signedIn();
  await revoke(page);
  // The streams of the page end with it.
  await page.getByRole("alert").filter({ hasText: "the session was ended" }).waitFor();
  await page.getByLabel("Token").waitFor();
  await page.context().close();
});

test("windows are signed in and out together", async () => {
  const page = await signedIn();
  const other = await newPage(page.context());
  await other.goto(base);
  await other.getByRole("heading", { name: "Tasks" }).waitFor();
  await signOut(page, other);
  await other.getByLabel("Token").fill(adminToken());
  assert.deepEqual(await page.context().cookies(`${base}/api/v1/`), []);
  await other.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "Tasks" }).waitFor();
  await page.context().close();
});

test("a restart of the control plane signs no one out", async () => {
  const page = await signedIn();
  await kill();
  await start();
  await shell("true", "--title", "after the restart");
  await show(page, "after the restart");
  await page.reload();
  await page.getByRole("link", { name: "after the restart" }).waitFor();
  await page.context().close();
});

test("who signs in again continues where they were", async () => {
  const page = await signedIn({ viewport: { width: 360, height: 640 } });
  const name = await scripted("a private one", [{ ask: "And?" }, { succeed: "done" }]);
  await show(page, "a private one");
  await page.getByRole("link", { name: "a private one" }).click();
  const answer = page.getByRole("form", { name: "Answer" }).locator("textarea");
  await answer.fill("half a sent");
  const address = page.url();
  await page.evaluate("window.kept = true");
  await revoke(page);
  await page.getByRole("alert").filter({ hasText: "Sign in again, to continue where you were" }).waitFor();
  // Nothing of the page is seen or reached meanwhile.
  assert.equal(await page.getByRole("heading", { name: "a private one" }).count(), 0);
  assert.equal(await answer.isVisible(), false);
  await accessible(page, "sign in again, light");
  await page.emulateMedia({ colorScheme: "dark" });
  await accessible(page, "sign in again, dark");
  await fits(page, "sign in again");
  await page.keyboard.press("t");
  await page.getByLabel("Token").fill(adminToken());
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "a private one" }).waitFor();
  assert.deepEqual([page.url(), await page.evaluate("window.kept")], [address, true]);
  assert.equal(await answer.inputValue(), "half a sent");
  await answer.fill("half a sentence");
  await page.getByRole("button", { name: "Answer" }).click();
  // The streams of the page go on as well.
  await page.locator(".bar .state.succeeded").waitFor();
  assert.equal((await api("GET", name)).status.state, "TASK_STATE_SUCCEEDED");
  await page.context().close();
});

test("the next person sees nothing of the last one", async () => {
  const page = await signedIn();
  const retry = { maxAttempts: 1 };
  const failed = await scripted("a failed plan", [{ fail: { message: "no luck" } }], { retry });
  await until(failed, "TASK_STATE_FAILED");
  // Drafts are removed with the session of their person in each window.
  const windows = [page, await newPage(page.context())];
  const drafts = "Object.keys(sessionStorage).filter((key) => key.startsWith('rota.draft'))";
  const edit = (window) => window.getByRole("button", { name: "Edit and retry" });
  for (const window of windows) {
    await window.goto(`${base}/tasks/default/${failed.split("/").at(-1)}`);
    await edit(window).click();
    const source = editorOf(window);
    await source.fill((await textOf(source)).replace("no luck", "half a plan"));
    // The policy of the page lets it wait for no expression by itself.
    await eventually(async () => (await window.evaluate(drafts)).length > 0, "no draft is kept");
  }
  // A tab in the background draws about once a second.
  await page.bringToFront();
  await signOut(...windows);
  await page.getByLabel("Token").fill(adminToken());
  await page.getByRole("button", { name: "Sign in" }).click();
  for (const window of windows) {
    await edit(window).waitFor();
    assert.deepEqual(await window.evaluate(drafts), []);
  }
  await page.goto(base);
  await shell("true", "--title", "a secret plan");
  await show(page, "a secret plan");
  await signOut(page);
  await page.route(/tasks\?pageSize=100/, () => {});
  await page.getByLabel("Token").fill(adminToken());
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "Tasks" }).waitFor();
  assert.equal(await page.getByText("a secret plan").count(), 0);
  await page.context().close();
});

test("tokens may have any characters", async () => {
  const endpoint = `http://127.0.0.1:${await freePort()}`;
  const token = join(folder, "odd-token");
  writeFileSync(token, "a+b&c%20d#e=f?g/0123456789012345\n", { mode: 0o600 });
  const args = ["--listen", new URL(endpoint).host, "--data-dir", join(folder, "odd"), "--token-file", token];
  const server = await serve(["server", ...args], endpoint);
  const page = await newPage(await browser.newContext());
  await page.goto((await run(["--endpoint", endpoint, "--token-file", token, "ui"])).trim());
  await page.getByText("No task matches").waitFor();
  await page.context().close();
  await stop(server);
});

test("a session over HTTPS is for its host and HTTPS alone", async () => {
  const port = await freePort();
  const endpoint = `https://localhost:${port}`;
  const [certificate, key] = [join(folder, "tls.crt"), join(folder, "tls.key")];
  const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
  const kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  execFileSync("openssl", ["req", ...kind, ...subject, "-keyout", key, "-out", certificate], {
    stdio: "ignore",
  });
  const token = join(folder, "https-token");
  writeFileSync(token, "0123456789012345678901234567890123\n", { mode: 0o600 });
  const args = ["--listen", `127.0.0.1:${port}`, "--data-dir", join(folder, "https"), "--token-file", token];
  const ca = readFileSync(certificate);
  const server = await serve(
    ["server", ...args, "--tls-certificate", certificate, "--tls-key", key],
    endpoint,
    // As a proxy does that speaks no HTTP/2.
    () => status(endpoint, { ca, ALPNProtocols: ["http/1.1"] }),
  );
  const page = await newPage(await browser.newContext({ ignoreHTTPSErrors: true }));
  await page.goto(endpoint);
  await page.getByLabel("Token").fill(readFileSync(token, "utf8").trim());
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByText("No task matches").waitFor();
  const [cookie] = await page.context().cookies();
  assert.equal(cookie.name, "__Host-rota-session");
  assert.deepEqual(
    [cookie.secure, cookie.httpOnly, cookie.sameSite, cookie.path],
    [true, true, "Strict", "/"],
  );
  await page.reload();
  await page.getByText("No task matches").waitFor();
  await page.context().close();
  await stop(server);
});

test("viewers see everything, and no action", async () => {
  const endpoint = `http://127.0.0.1:${await freePort()}`;
  const file = (name) => {
    writeFileSync(join(folder, name), `${name}-0123456789012345678901234567890\n`, { mode: 0o600 });
    return join(folder, name);
  };
  const [admin, viewer] = [file("admin"), file("viewer")];
  const args = ["--listen", new URL(endpoint).host, "--data-dir", join(folder, "viewed")];
  const server = await serve(
    ["server", ...args, "--token-file", admin, "--viewer-token-file", viewer],
    endpoint,
  );
  const as = (token, ...more) => run(["--endpoint", endpoint, "--token-file", token, ...more]);
  const call = (path, body) =>
    fetch(`${endpoint}/api/v1/namespaces/default/${path}`, {
      method: "POST",
      headers: {
        Authorization: `Bearer ${readFileSync(admin, "utf8").trim()}`,
        "Content-Type": "application/json",
      },
      body: JSON.stringify(body),
    });
  await call("agents?agentId=one", { spec: { runtime: { command: {} } } });
  await call("tasks", { spec: { title: "to be seen", target: { agent: "one" }, prompt: "x" } });
  const steps = [{ name: "look", approval: { prompt: "Is it good?" } }];
  await call("workflows", { spec: { title: "a viewed one", steps } });
  await call("schedules?scheduleId=nightly", {
    spec: { cron: "0 3 * * *", task: { spec: { target: { agent: "one" }, prompt: "x" } } },
  });
  const page = await newPage(await browser.newContext());
  await page.goto((await as(viewer, "ui")).trim());
  await page.getByText("read only").waitFor();
  const actions = page.getByRole("button", {
    name: /Cancel|Suspend|Resume|Retry|All that match|Priority|Pause|Run|Drain|Scale|Approve|Reject|Answer|Set |Remove/,
  });
  const shows = async (link, locator) => {
    await page.getByRole("link", { name: link }).first().click();
    // The page before may show the same.
    await page.getByRole("heading", { level: 1, name: link }).waitFor();
    await locator.first().waitFor();
    assert.equal(await actions.count(), 0, `${link}: ${await actions.allInnerTexts()}`);
    await accessible(page, `${link} of a viewer`);
  };
  await shows(/Inbox/, page.getByText("Is it good?"));
  await page.getByText("Viewers cannot decide.").waitFor();
  await shows("Workflows", page.getByRole("link", { name: "a viewed one" }));
  await shows("a viewed one", page.getByRole("cell", { name: /look/ }));
  await shows("Agents", page.getByRole("cell", { name: "one", exact: true }));
  await shows("Schedules", page.getByRole("cell", { name: /nightly/ }));
  await shows("Costs", page.getByRole("heading", { name: "Spending" }));
  await shows("System", page.locator("code"));
  await shows("Tasks", page.getByRole("link", { name: "to be seen" }));
  assert.equal(await page.getByRole("checkbox").count(), 0);
  await shows("to be seen", page.getByRole("heading", { name: "to be seen" }));
  // What a page does not offer is refused.
  await assert.rejects(as(viewer, "cancel", "to-be-seen"), /ROLE_FORBIDDEN|viewers only read/);
  // The admin's token brings the actions back.
  await signOut(page);
  await page.getByLabel("Token").fill(readFileSync(admin, "utf8").trim());
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("button", { name: "Cancel" }).waitFor();
  await page.context().close();
  await stop(server);
});

test("no token is asked for where none is required", async () => {
  const endpoint = `http://127.0.0.1:${await freePort()}`;
  const args = ["--listen", new URL(endpoint).host, "--data-dir", join(folder, "open"), "--insecure"];
  const server = await serve(["server", ...args], endpoint);
  const target = { agent: "missing" };
  await fetch(`${endpoint}/api/v1/namespaces/default/tasks`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ spec: { title: "waiting", target, prompt: "x" } }),
  });
  const page = await newPage(await browser.newContext());
  await page.goto(endpoint);
  await page.getByRole("link", { name: "waiting" }).click();
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
  await page.locator(".state.cancelled").first().waitFor();
  assert.equal(await page.getByRole("button", { name: "Sign out" }).count(), 0);
  // Pages of other programs on this machine are of another origin.
  const headers = { Origin: base };
  assert.equal((await fetch(`${endpoint}/api/v1/namespaces/default/tasks`, { headers })).status, 403);
  await page.context().close();
  await stop(server);
});

nothingFailed();
