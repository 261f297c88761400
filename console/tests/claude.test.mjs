// An agent of the real Claude Code CLI in a real browser, on the fake model of this project, whose answers are in the prompt.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { accessible, api, base, nothingFailed, setUp, signedIn, until } from "./harness.mjs";

const INSTALL = join(import.meta.dirname, "../../scripts/install-claude");
const MODEL = process.env.ROTA_FAKE_MODEL_BIN ?? "rota-fake-model";

/** Returns the path of the CLI, installed if missing. Without it the file fails, with what the script prints. */
function installed() {
  const options = { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] };
  return process.env.ROTA_CLAUDE_BIN ?? execFileSync(INSTALL, options).trim();
}

setUp({ claude: installed() });

let model;
let modelUrl;

before(async () => {
  model = spawn(MODEL, ["--listen", "127.0.0.1:0"], { stdio: ["ignore", "pipe", "inherit"] });
  const failed = new Promise((_, reject) => {
    model.once("error", reject);
    model.once("close", (code) => reject(new Error(`${MODEL} has ended with ${code}`)));
  });
  // Its end is no failure once it has begun.
  failed.catch(() => {});
  const lines = createInterface({ input: model.stdout });
  modelUrl = await Promise.race([new Promise((resolve) => lines.once("line", resolve)), failed]);
});

after(async () => {
  if (model?.pid && model.exitCode === null) {
    const ended = new Promise((resolve) => model.once("close", resolve));
    model.kill();
    await ended;
  }
});

const bash = (command, more = {}) => ({ ...more, tools: [{ name: "Bash", input: { command } }] });

test("the real CLI asks, calls tools, starts a subagent, and has a result with its cost", async () => {
  const claude = {
    permissionPolicy: "PERMISSION_POLICY_ASK",
    allowedTools: ["Bash(echo *)"],
    agents: { critic: { description: "Criticizes.", prompt: "Criticize." } },
  };
  const spec = { runtime: { claude }, maxReplicas: 1 };
  await api("POST", "namespaces/default/agents?agentId=coder", { spec });
  const inner = [bash("echo seen by the critic"), { text: "criticized" }];
  const input = { subagent_type: "critic", description: "Look", prompt: `MOCK${JSON.stringify(inner)}` };
  const script = [
    bash("git init -b main fresh", { text: "A repository first." }),
    { tools: [{ name: "Task", input }] },
    { text: "It is all good.", usage: { input_tokens: 1234, output_tokens: 56_789 } },
  ];
  const { name } = await api("POST", "namespaces/default/tasks", {
    spec: {
      title: "a real one",
      target: { agent: "coder" },
      prompt: `Do this: MOCK${JSON.stringify(script)}`,
      environment: { ANTHROPIC_BASE_URL: modelUrl },
      secrets: { ANTHROPIC_API_KEY: randomBytes(16).toString("hex") },
      retry: { maxAttempts: 1 },
    },
  });
  const page = await signedIn();
  await page.goto(`${base}/tasks/default/${name.split("/").at(-1)}`);
  const log = page.getByRole("region", { name: "Log", exact: true });

  // The permission, with what it is asked for, and its answer.
  const answer = page.getByRole("form", { name: "Answer" });
  await answer.getByText("May it use Bash?").waitFor();
  await answer.getByText("git init -b main fresh", { exact: true }).waitFor();
  assert.equal((await api("GET", name)).status.state, "TASK_STATE_INPUT_REQUIRED");
  await answer.getByRole("button", { name: "Allow once" }).click();
  await answer.waitFor({ state: "detached" });
  await log.locator(".line.note", { hasText: "asks: " }).waitFor();
  await log.getByText("answer: allow").waitFor();

  // Its tools, and below the call that has started it, those of the subagent.
  const tool = log.locator(".line.tool");
  await tool.filter({ hasText: "Initialized empty Git repository" }).waitFor();
  await tool.filter({ hasText: '"subagent_type":"critic"' }).waitFor();
  const nested = tool.locator(".nested.depth-1");
  await nested.filter({ hasText: 'Subagent: Bash {"command":"echo seen by the critic"' }).waitFor();
  await nested.filter({ hasText: /^Subagent: seen by the critic$/ }).waitFor();
  assert.equal(await nested.filter({ hasText: /Initialized|subagent_type/ }).count(), 0);

  // The result, and what it has cost by the prices that the CLI knows.
  await page.getByRole("region", { name: "Result" }).getByText("It is all good.").waitFor();
  const { usage } = await until(name, "TASK_STATE_SUCCEEDED");
  const pair = async (label) => {
    const row = page.locator("dl.pairs > div", { has: page.getByText(label, { exact: true }) });
    return row.locator("dd").textContent();
  };
  assert.ok(Number(usage.costMicroUsd) > 0 && Number(usage.outputTokens) >= 56_789, JSON.stringify(usage));
  const cost = Number(usage.costMicroUsd) / 1e6;
  assert.ok(Math.abs(Number((await pair("Cost")).replace("$", "")) - cost) < 0.01);
  assert.equal(await pair("Tokens"), `${usage.inputTokens} in, ${usage.outputTokens} out`);
  await accessible(page, "a task of the real CLI");
  await page.context().close();
});

nothingFailed();
