// Sign-in of people at their issuer by the button, in a real browser, with a real OpenID Connect provider on this machine.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import {
  accessible,
  browser,
  folder,
  freePort,
  newPage,
  nothingFailed,
  serve,
  setUp,
  signOut,
  stop,
  textOf,
} from "./harness.mjs";

setUp();

const ISSUER = process.env.ROTA_ISSUER_BIN ?? "rota-testkit-issuer";
// Chromium does not leave the pages that the harness serves by itself for another server on this machine.
const options = { skip: Boolean(process.env.ROTA_CONSOLE_DIST) && "needs the pages of the program" };
const ADMIN = "open-sesame-0123456789012345678901";
let issuer;
let server;
let endpoint;

/** Starts the provider. Who signs in is given by the claims of a person; `null` is one who refuses. */
async function startIssuer() {
  const child = spawn(ISSUER, [], { stdio: ["pipe", "pipe", "inherit"] });
  const ended = new Promise((resolve, reject) => {
    child.once("close", resolve);
    child.once("error", reject);
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const line = async () => {
    const { value, done } = await Promise.race([lines.next(), ended.then(() => ({ done: true }))]);
    assert.ok(!done, `${ISSUER} has ended`);
    return value;
  };
  return {
    url: await line(),
    signsIn: async (person) => {
      child.stdin.write(`${JSON.stringify(person)}\n`);
      assert.equal(await line(), "changed");
    },
    stop: async () => {
      child.stdin.end();
      await ended;
    },
  };
}

/** Starts a control plane with the provider, below a path. Returns the process and its address. */
async function startServer(path = "") {
  const endpoint = `http://127.0.0.1:${await freePort()}`;
  const name = `people${path.replace("/", "-")}`;
  const [people, token] = [join(folder, `${name}.toml`), join(folder, `${name}.token`)];
  const head = `issuer = "${issuer.url}"\nclient_id = "rota"\nurl = "${endpoint}${path}"\nname = "Example"\n`;
  const allow = (who, role) => `[[allow]]\n${who}\nrole = "${role}"\n`;
  const list = allow('subject = "ada"', "admin") + allow('group = "guests"', "viewer");
  writeFileSync(people, head + list, { mode: 0o600 });
  writeFileSync(token, `${ADMIN}\n`, { mode: 0o600 });
  const args = [
    "--listen",
    new URL(endpoint).host,
    "--data-dir",
    join(folder, name),
    "--base-path",
    path || "/",
  ];
  const server = await serve(["server", ...args, "--token-file", token, "--sign-in", people], endpoint);
  return { server, endpoint };
}

before(async () => {
  issuer = await startIssuer();
  ({ server, endpoint } = await startServer());
});

after(async () => {
  if (server) {
    await stop(server);
  }
  await issuer?.stop();
});

/** Makes a call as the admin. */
async function call(method, path, body) {
  const headers = { Authorization: `Bearer ${ADMIN}`, "Content-Type": "application/json" };
  const response = await fetch(`${endpoint}/api/v1/${path}`, {
    method,
    headers,
    body: body && JSON.stringify(body),
  });
  assert.ok(response.ok, `${method} ${path}: ${response.status}`);
  return response.json();
}

const sessions = async () => (await call("GET", "browserSessions")).browserSessions ?? [];
const button = (page) => page.getByRole("link", { name: "Sign in with Example" });

/** Opens a page of a browser that has no session. */
async function open(path) {
  const page = await newPage(await browser.newContext({ locale: "en-US" }));
  await page.goto(`${endpoint}${path}`);
  await button(page).waitFor();
  return page;
}

test("a person signs in by the button, and out", options, async () => {
  await issuer.signsIn({ sub: "ada", preferred_username: "Ada" });
  const page = await open("/workflows?view=all");
  await accessible(page, "sign-in with an issuer, light");
  await page.emulateMedia({ colorScheme: "dark" });
  await accessible(page, "sign-in with an issuer, dark");
  await button(page).click();
  await page.getByRole("heading", { name: "Workflows" }).waitFor();
  const { pathname, hash, search } = new URL(page.url());
  assert.deepEqual([pathname, search, hash], ["/workflows", "?view=all", ""]);
  // The browser has a session, of which no script and no address has anything, and no token of the issuer.
  const cookies = await page.context().cookies([`${endpoint}/api/v1/`, `${endpoint}/sign-in`]);
  assert.deepEqual(
    cookies.map(({ name, httpOnly, sameSite }) => [name, httpOnly, sameSite]),
    [[`rota-session-${new URL(endpoint).port}`, true, "Strict"]],
  );
  assert.equal(await page.evaluate("document.cookie + localStorage.length + sessionStorage.length"), "00");
  assert.deepEqual(
    (await sessions()).map(({ person, role }) => [person, role]),
    [["Ada", "admin"]],
  );
  await signOut(page);
  await button(page).waitFor();
  assert.deepEqual(await sessions(), []);
  assert.deepEqual(await page.context().cookies(`${endpoint}/api/v1/`), []);
  await page.reload();
  await button(page).waitFor();
  await page.context().close();
});

test("a person signs in below a base path", options, async () => {
  await issuer.signsIn({ sub: "ada", preferred_username: "Ada" });
  const below = await startServer("/rota");
  const page = await newPage(await browser.newContext({ locale: "en-US" }));
  await page.goto(`${below.endpoint}/rota/workflows?view=all`);
  await button(page).click();
  await page.getByRole("heading", { name: "Workflows" }).waitFor();
  assert.equal(page.url(), `${below.endpoint}/rota/workflows?view=all`);
  const cookies = await page
    .context()
    .cookies([`${below.endpoint}/rota/api/v1/`, `${below.endpoint}/rota/sign-in`]);
  assert.deepEqual(
    cookies.map(({ name, path }) => [name, path]),
    [[`rota-session-${new URL(below.endpoint).port}`, "/rota/api/"]],
  );
  await page.context().close();
  await issuer.signsIn({ sub: "eve" });
  const stranger = await newPage(await browser.newContext({ locale: "en-US" }));
  await stranger.goto(`${below.endpoint}/rota/`);
  await button(stranger).click();
  await stranger.getByRole("alert").filter({ hasText: "You are not on the list" }).waitFor();
  assert.ok(stranger.url().startsWith(`${below.endpoint}/rota/`));
  await stranger.context().close();
  await stop(below.server);
});

test("a session that ends loses nothing that was typed", options, async () => {
  await issuer.signsIn({ sub: "ada", preferred_username: "Ada" });
  const page = await open("/workflows/new");
  await button(page).click();
  const text = page.locator("#main .cm-content");
  await text.fill("half a workflow");
  await page.evaluate("window.kept = true");
  const [session] = await sessions();
  await call("POST", `${session.name}:revoke`, {});
  await page.getByRole("alert").filter({ hasText: "Sign in again, to continue where you were" }).waitFor();
  assert.equal(await text.isVisible(), false);
  // The issuer has a window of its own, after which both are signed in.
  const opened = page.context().waitForEvent("page");
  await button(page).click();
  const other = await opened;
  await other.getByRole("button", { name: "Sign out" }).waitFor();
  await text.waitFor();
  assert.deepEqual([await textOf(text), await page.evaluate("window.kept")], ["half a workflow", true]);
  await page.context().close();
  for (const { name } of await sessions()) {
    await call("POST", `${name}:revoke`, {});
  }
});

test("another person does not continue an expired page", options, async () => {
  await issuer.signsIn({ sub: "ada", preferred_username: "Ada" });
  const page = await open("/workflows/new");
  await button(page).click();
  const text = page.locator("#main .cm-content");
  const token = async () => {
    // Moves what is below it when it is shown.
    await button(page).waitFor();
    await page.getByLabel("Token").fill(ADMIN);
    await page.getByRole("button", { name: "Sign in" }).click();
  };
  const guest = async () => {
    await issuer.signsIn({ sub: "bob", groups: ["guests"] });
    const opened = page.context().waitForEvent("page");
    await button(page).click();
    await (await opened).getByText("read only").waitFor();
  };
  // In a window of the issuer, and in this one.
  for (const signInAsAnother of [guest, token]) {
    await text.fill("half a workflow");
    await page.evaluate("window.kept = true");
    const [session] = await sessions();
    await call("POST", `${session.name}:revoke`, {});
    await page.getByRole("alert").filter({ hasText: "Sign in again, to continue where you were" }).waitFor();
    await signInAsAnother();
    await text.filter({ hasText: "An example" }).waitFor();
    assert.equal(await page.evaluate("window.kept"), undefined);
  }
  await page.context().close();
  for (const { name } of await sessions()) {
    await call("POST", `${name}:revoke`, {});
  }
});

test("a person who is not allowed learns why", options, async () => {
  for (const [person, text] of [
    [{ sub: "eve" }, "You are not on the list of people who may sign in"],
    [null, "The sign-in was refused."],
  ]) {
    await issuer.signsIn(person);
    const page = await open("/");
    await button(page).click();
    await page.getByRole("alert").filter({ hasText: text }).waitFor();
    await button(page).waitFor();
    assert.equal(new URL(page.url()).hash, "");
    assert.deepEqual(await page.context().cookies([`${endpoint}/api/v1/`, `${endpoint}/sign-in`]), []);
    await page.context().close();
  }
  assert.deepEqual(await sessions(), []);
});

test("a person with the role of a viewer only reads", options, async () => {
  await issuer.signsIn({ sub: "bob", groups: ["guests"] });
  const page = await open("/");
  await button(page).click();
  await page.getByText("read only").waitFor();
  assert.deepEqual(
    (await sessions()).map(({ subject, role }) => [subject, role]),
    [["bob", "viewer"]],
  );
  await page.context().close();
});

nothingFailed();
