import type { ReactNode } from "react";
import { renderToStaticMarkup } from "react-dom/server";
import { expect, test } from "vitest";
import { ApiError } from "../api/client";
import { Conflict } from "../api/conflict";
import { titleOf } from "../features/tasks/title";
import { Conflicted } from "./Conflicted";
import { Problem } from "./Problem";
import { State } from "./State";
import { hidden, optional, Table } from "./Table";
import { UnusedReplies } from "./UnusedReplies";
import { choiceWith } from "./useReply";

const text = (node: ReactNode) =>
  renderToStaticMarkup(node)
    .replace(/<[^>]*>/g, " ")
    .replace(/\s+/g, " ")
    .trim();

test("a problem is an alert with its hint and reason, and nothing without an error", () => {
  expect(renderToStaticMarkup(<Problem error={undefined} />)).toBe("");
  const error = new ApiError(3, "the name is taken", "AGENT_EXISTS", "choose another");
  const shown = renderToStaticMarkup(<Problem error={error} />);
  expect(shown).toContain('role="alert"');
  expect(text(<Problem error={error} />)).toBe("the name is taken choose another AGENT_EXISTS");
  expect(renderToStaticMarkup(<Problem error="<img src=x>" />)).toContain("&lt;img src=x&gt;");
});

test("a state has a sign and a word, also one of a later version, or none", () => {
  expect(text(<State value="TASK_STATE_INPUT_REQUIRED" prefix="TASK_STATE_" />)).toContain("input required");
  expect(text(<State value="TASK_STATE_OF_A_LATER_VERSION" prefix="TASK_STATE_" />)).toContain(
    "of a later version",
  );
  expect(text(<State value={undefined} prefix="TASK_STATE_" />)).toBe("·");
});

test("a table without rows has its headings, and one with many has them all", () => {
  const heads = ["State", optional("Agent"), hidden("Actions"), false as const];
  const empty = renderToStaticMarkup(
    <Table label="Tasks" heads={heads}>
      {[]}
    </Table>,
  );
  expect(empty.match(/<th[ >]/g)).toHaveLength(3);
  expect(empty).toContain('aria-label="Tasks"');
  expect(empty).toContain('<span class="hidden">Actions</span>');
  const rows = Array.from({ length: 1000 }, (_, index) => (
    // biome-ignore lint/suspicious/noArrayIndexKey: rows of a test never move
    <tr key={index}>
      <td>{"a-long-name-without-a-blank-".repeat(20)}</td>
    </tr>
  ));
  const many = renderToStaticMarkup(
    <Table label="Tasks" heads={heads}>
      {rows}
    </Table>,
  );
  expect(many.match(/<tr/g)).toHaveLength(1001);
});

test("names from right to left stay as they are, and signs that turn text are named", () => {
  const title = (title: string) => titleOf({ name: "namespaces/n/tasks/1", spec: { title } });
  expect(title("מטלה דחופה")).toBe("מטלה דחופה");
  expect(title("safe \u202edaolpu")).toBe("safe [U+202E]daolpu");
  expect(title("")).toBe("1");
});

test("a conflict shows both versions, and what there was", () => {
  const overwrite = () => Promise.resolve();
  const conflict = new Conflict("coder", { Most: "2" }, { Most: "3\u202e" }, { Most: "4" }, overwrite);
  const shown = text(<Conflicted conflict={conflict} act={() => Promise.resolve()} />);
  expect(shown).toContain(
    "coder was changed by someone else meanwhile: Most is 3[U+202E] now, and not 4. Nothing of yours was saved.",
  );
  expect(shown).toContain("When you began Now Yours Most 2");
  expect(shown).toContain("Overwrite with mine Keep what is there");
});

test("a choice and its text stay separate", () => {
  expect(choiceWith("Deny", "the second one")).toBe("Deny: the second one");
  expect(choiceWith("Deny", " ")).toBe("Deny");
});

test("replies that were not used show what became of them", () => {
  const shown = (error?: unknown) =>
    text(
      <UnusedReplies
        replies={[{ asked: "Which \u202ecolour?", given: "green", error }]}
        onClose={() => {}}
      />,
    );
  const asked = "No longer asked: Which [U+202E]colour? Someone else may have replied.";
  expect(shown()).toBe(`${asked} Yours was not sent: green Close`);
  // Without an answer of the server it is not known.
  expect(shown(new ApiError(14, "unreachable"))).toContain(
    `${asked} Yours may have arrived: green unreachable`,
  );
  expect(shown(new ApiError(9, "no such request"))).toContain(
    "Yours was not accepted: green no such request",
  );
  expect(renderToStaticMarkup(<UnusedReplies replies={[]} onClose={() => {}} />)).toBe("");
});
