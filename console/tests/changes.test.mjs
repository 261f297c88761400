// What a task has changed and left, in a real browser.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import {
  accessible,
  api,
  base,
  fits,
  folder,
  hold,
  nothingFailed,
  scripted,
  setUp,
  signedIn,
  tabTo,
  until,
  WAYS,
} from "./harness.mjs";

setUp();

const HOSTILE = "<img src=x onerror=alert(1)>";
const DRAWING =
  '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40" onload="alert(2)"><script>alert(3)</script><rect width="40" height="40"/></svg>';

/** Creates a repository, and returns its address. */
function repository(name, files) {
  const path = join(folder, name);
  mkdirSync(path);
  const git = (...args) =>
    execFileSync("git", ["-c", "user.name=a", "-c", "user.email=a@test.invalid", ...args], {
      cwd: path,
      env: { PATH: process.env.PATH, HOME: folder },
    });
  git("init", "--quiet");
  for (const [file, text] of Object.entries(files)) {
    writeFileSync(join(path, file), text);
  }
  git("add", ".");
  git("commit", "--quiet", "--message", "begin");
  return `file://${path}`;
}

const write = (path, text) => ({ writeFile: { path, text } });

/** Runs a task that changes a repository, and returns its name. */
async function changed(title, url, steps, spec = {}) {
  const workspace = { git: { url }, keepFiles: ["*.svg", "*.html", "*.bin", "report.txt"] };
  const all = [{ remember: "begun" }, ...steps, { succeed: "done" }];
  const name = await scripted(title, all, { workspace, ...spec });
  await until(name, "TASK_STATE_SUCCEEDED");
  return name;
}

const open = (page, name) => page.goto(`${base}/tasks/default/${name.split("/").at(-1)}`);

test("changes are shown first, commented by keyboard and pointer, and continued", async () => {
  const url = repository("project", { "main.rs": "fn main() {\n    old();\n}\n", "other.txt": "a\n" });
  const name = await changed(
    "a fix",
    url,
    [write("main.rs", `fn main() {\n    new(); // \u202e${HOSTILE}\n}\n`), write("new.txt", "one\ntwo\n")],
    { prompt: "Fix it" },
  );
  for (const [colorScheme, { press, type }] of [
    ["light", WAYS.keyboard],
    ["dark", WAYS.pointer],
  ]) {
    const page = await signedIn({ colorScheme, viewport: { width: 360, height: 640 } });
    await open(page, name);
    const changes = page.getByRole("region", { name: "Changes", exact: true });
    await changes.getByText("2 files changed, 3 lines added, 1 removed").waitFor();
    await changes.getByText(`new(); // [U+202E]${HOSTILE}`).waitFor();
    assert.equal(await page.locator("main img, main script").count(), 0);
    // Before the log.
    const top = async (locator) => (await locator.boundingBox()).y;
    assert.ok((await top(changes)) < (await top(page.getByRole("heading", { name: "Log" }))));
    // By keyboard: one line is in the order of the tab key, the arrows move on.
    const first = changes.getByRole("button", { name: "Comment on main.rs, line 1" });
    await first.waitFor();
    await tabTo(page, first);
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    await page.keyboard.type("Why is it new?");
    await accessible(page, `a comment, ${colorScheme}`);
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    // By pointer.
    await changes.getByRole("button", { name: "Comment on new.txt, added line 2" }).click();
    const form = changes.getByRole("form", { name: "Comment on new.txt, added line 2" });
    await form.getByRole("textbox").fill("Three is missing.");
    await form.getByRole("button", { name: "Keep comment" }).click();
    // One that is removed again is not a part of the next message.
    await changes.getByRole("button", { name: "Comment on new.txt, added line 1" }).click();
    const other = changes.getByRole("form", { name: "Comment on new.txt, added line 1" });
    await other.getByRole("textbox").fill("Never mind.");
    await other.getByRole("button", { name: "Keep comment" }).click();
    await page.getByRole("button", { name: "Continue with 3 comments" }).waitFor();
    await press(page, other.getByRole("button", { name: "Remove comment" }));
    await other.waitFor({ state: "detached" });
    await page.getByRole("button", { name: "Continue with 2 comments" }).waitFor();
    await fits(page, "changes");
    await accessible(page, `changes, ${colorScheme}`);
    await type(page, page.getByLabel("Next message"), "Nearly there.");
    await press(page, page.getByRole("button", { name: "Continue with 2 comments" }));
    await page.waitForURL((to) => !to.pathname.endsWith(name.split("/").at(-1)));
    const next = `namespaces/default/tasks/${new URL(page.url()).pathname.split("/").at(-1)}`;
    const { spec } = await api("GET", next);
    const before = await api("GET", name);
    assert.equal(spec.continueFrom, before.uid);
    assert.equal(
      spec.prompt,
      `Nearly there.\n\nComments on what you have changed:\n\nmain.rs, added line 2:\n> new(); // [U+202E]${HOSTILE}\nWhy is it new?\n\nnew.txt, added line 2:\n> two\nThree is missing.`,
    );
    assert.equal(spec.workspace.git.url, url);
    await until(next, "TASK_STATE_SUCCEEDED");
    await page.context().close();
  }
});

test("artifacts are previewed without running them, and downloaded", async () => {
  const url = repository("pictures", { "a.txt": "a\n" });
  const page = await signedIn({ acceptDownloads: true });
  const name = await changed("drawings", url, [
    write("drawing.svg", DRAWING),
    write("page.html", `${HOSTILE}<script>alert(4)</script>\u202e`),
    write("broken.svg", "no drawing"),
    write("zeros.bin", "a\u0000b"),
    write("report.txt", "x".repeat(300_000)),
  ]);
  await open(page, name);
  const artifacts = page.getByRole("region", { name: "Artifacts", exact: true });
  const preview = async (file, { press } = WAYS.pointer) => {
    await press(page, artifacts.getByRole("button", { name: `Preview workspace/${file}` }));
    return artifacts.getByRole("listitem").filter({ hasText: `workspace/${file}` });
  };
  const drawing = await preview("drawing.svg", WAYS.keyboard);
  const image = drawing.getByRole("img", { name: "workspace/drawing.svg" });
  await image.waitFor();
  await page.waitForFunction(() => document.querySelector(".artifacts img")?.naturalWidth === 40);
  await (await preview("page.html")).getByText(`${HOSTILE}<script>alert(4)</script>[U+202E]`).waitFor();
  await (await preview("broken.svg")).getByText("This is no image.").waitFor();
  await (await preview("zeros.bin")).getByText("This is no text.").waitFor();
  await (await preview("report.txt")).getByText("These are the first 256 KiB.").waitFor();
  assert.equal(await page.locator("main img[src^='x'], main script").count(), 0);
  await accessible(page, "previews");
  // What is refused is reported next to its link.
  const link = artifacts.getByRole("link", { name: "Download workspace/report.txt" });
  const refusal = artifacts
    .getByRole("listitem")
    .filter({ hasText: "workspace/report.txt" })
    .getByRole("alert");
  const contents = /artifacts:download/;
  const away = { status: 503, json: { code: 14, message: "the storage is away" } };
  await page.route(contents, (route) => route.fulfill(away));
  await link.click();
  await refusal.filter({ hasText: "the storage is away" }).waitFor();
  await accessible(page, "a refused download");
  await page.unroute(contents);
  let checks = 0;
  page.on("request", (request) => {
    checks += contents.test(request.url()) && request.resourceType() === "fetch" ? 1 : 0;
  });
  const { held, release } = await hold(page, contents);
  const download = page.waitForEvent("download");
  await link.click();
  await held;
  // A second click while the first one is under way.
  await link.click();
  release();
  const saved = await download;
  assert.equal(checks, 1);
  assert.equal(await refusal.count(), 0);
  // The browser itself has read it.
  assert.ok(saved.url().startsWith(`${base}/api/v1/`), saved.url());
  assert.equal(saved.suggestedFilename(), "report.txt");
  assert.equal(readFileSync(await saved.path(), "utf8"), "x".repeat(300_000));
  await page.setViewportSize({ width: 360, height: 640 });
  await fits(page, "previews");
  // A download for which the session is over has the page ask to sign in.
  const over = { status: 401, json: { code: 16, message: "the session was ended" } };
  await page.route(/artifacts:download|browserSessions\/current/, (route) => route.fulfill(over));
  await link.click();
  await page.getByRole("alert").filter({ hasText: "Sign in again, to continue where you were" }).waitFor();
  await page.context().close();
});

test("large changes are cut at a bound, and many lines wait for a click", async () => {
  const url = repository("large", { "a.txt": "a\n" });
  const page = await signedIn();
  const lines = (count, text) => Array.from({ length: count }, (_, index) => `${text} ${index}`).join("\n");
  const name = await changed("a lot", url, [
    write("a.txt", lines(3000, "line")),
    ...[1, 2, 3, 4, 5, 6].map((file) => write(`huge-${file}.txt`, lines(10, "y".repeat(90_000)))),
  ]);
  await open(page, name);
  const changes = page.getByRole("region", { name: "Changes", exact: true });
  await changes.getByText("Only the first 4 MiB").waitFor();
  const file = changes.getByRole("group").filter({ hasText: "a.txt" });
  assert.equal(await file.getByText("line 0", { exact: true }).count(), 0);
  await file.getByText("a.txt", { exact: true }).click();
  await file.getByText("line 0", { exact: true }).waitFor();
  assert.equal(await file.getByText("line 2500", { exact: true }).count(), 0);
  await file.getByRole("button", { name: /Show more of [0-9]+ lines/ }).click();
  await file.getByRole("button", { name: /Show more of [0-9]+ lines/ }).click();
  await file.getByText("line 2500", { exact: true }).waitFor();
  assert.ok((await page.evaluate("document.querySelectorAll('*').length")) < 40_000);
  await page.context().close();
});

nothingFailed();
