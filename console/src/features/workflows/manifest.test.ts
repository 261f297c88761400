import { expect, test } from "vitest";
import { lineOfField, read, write } from "./manifest";

const TEXT = `title: release
steps:
  - name: build
    task:
      target: {agent: shell}
  - name: look
    needs:
      - step: build
    approval:
      prompt: Is it good?
`;

test("a specification is read, and that of a manifest", () => {
  expect(read(TEXT).spec?.steps?.map((step) => step.name)).toEqual(["build", "look"]);
  const manifest = `apiVersion: rota.dev/v1alpha1\nkind: Workflow\nmetadata: {name: x}\nspec:\n  title: inner\n`;
  expect(read(manifest).spec).toEqual({ title: "inner" });
  expect(read(write({ title: "a: b", steps: [{ name: "x" }] })).spec).toEqual({
    title: "a: b",
    steps: [{ name: "x" }],
  });
});

test("what cannot be read has a line", () => {
  expect(read("title: x\nsteps: [a\n").line).toBeGreaterThan(1);
  expect(read("just words")).toMatchObject({ line: 1 });
  expect(read("")).toMatchObject({ line: 1 });
  // Aliases that would make gigabytes of it.
  const bomb = ["a: &a [x,x,x,x,x,x,x,x,x,x]"];
  for (let level = 0; level < 9; level += 1) {
    const [from, to] = [String.fromCharCode(97 + level), String.fromCharCode(98 + level)];
    bomb.push(`${to}: &${to} [${Array(10).fill(`*${from}`).join(",")}]`);
  }
  expect(read(bomb.join("\n")).error).toContain("alias");
});

test("fields of errors have lines, or those around them", () => {
  expect(lineOfField(TEXT, "workflow.spec.steps[1].approval.prompt", "Workflow")).toBe(10);
  expect(lineOfField(TEXT, "workflow.spec.steps[1].needs[0].step", "Workflow")).toBe(8);
  expect(lineOfField(TEXT, "workflow.spec.steps[0].task.retry_policy", "Workflow")).toBe(5);
  expect(lineOfField(TEXT, "workflow.spec.max_parallel", "Workflow")).toBeUndefined();
});

test("fields of tasks have lines, also in a manifest", () => {
  const spec = "prompt: Build it\nlimits:\n  total_timeout: 5s\nretry: {maxAttempts: 0}\n";
  expect(lineOfField(spec, "task.spec.retry.max_attempts", "Task")).toBe(4);
  expect(lineOfField(spec, "task.spec.depends_on[0].task", "Task")).toBeUndefined();
  const manifest = `kind: Task\nspec:\n${spec.replace(/^(?=.)/gm, "  ")}`;
  expect(lineOfField(manifest, "task.spec.retry.max_attempts", "Task")).toBe(6);
});
