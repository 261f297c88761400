import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { post } from "../../api/client";
import { visible } from "../../api/plain";
import { refresh } from "../../api/refresh";
import type { StepStatus } from "../../api/types";
import { Acting } from "../../components/Acting";
import { Problem } from "../../components/Problem";
import { choiceWith, type Unused, useReply } from "../../components/useReply";

/** What a person decides about a step. */
interface Kind {
  title: string;
  /** Name and length of the text that is sent with it. */
  field: string;
  maxLength: number;
  viewers: string;
  /** The first one is what most decide. */
  choices: [value: string, label: (name: string | undefined) => string][];
  /** Call of the workflow, and its body. */
  verb: string;
  body: (step: StepStatus, choice: string, text: string) => object;
}

/** An approval that waits. */
export const APPROVAL: Kind = {
  title: "Decision on",
  field: "Comment",
  maxLength: 4096,
  viewers: "Viewers cannot decide.",
  choices: [
    ["STEP_DECISION_APPROVE", (name) => `Approve ${name}`],
    ["STEP_DECISION_REJECT", (name) => `Reject ${name}`],
  ],
  verb: "decide",
  body: ({ name }, decision, comment) => ({ step: name, decision, comment }),
};

/** A compensation that has failed. */
export const COMPENSATION: Kind = {
  title: "Failed compensation of",
  field: "Reason",
  maxLength: 1024,
  viewers: "Viewers cannot resolve it.",
  choices: [
    ["COMPENSATION_RESOLUTION_RETRY", (name) => `Compensate ${name} again`],
    ["COMPENSATION_RESOLUTION_DONE", () => "Reversed by hand"],
    ["COMPENSATION_RESOLUTION_SKIP", () => "Leave the effects"],
  ],
  verb: "resolveCompensation",
  body: ({ name, compensationFailures }, resolution, note) => ({
    step: name,
    resolution,
    note,
    failure: compensationFailures,
  }),
};

/** A step that waits for a person, with its prompt, and the form that decides it. */
export function Decision({
  of,
  workflow,
  step,
  onUnused,
  onDecided,
}: {
  of: Kind;
  workflow: string;
  step: StepStatus;
  onUnused: (unused: Unused) => void;
  /** Called in place of a note, where the page shows what follows. */
  onDecided?: () => void;
}) {
  const cache = useQueryClient();
  const [text, setText] = useState("");
  const [isDecided, setIsDecided] = useState(false);
  const asked = of === APPROVAL && step.prompt ? step.prompt : `${of.title} ${step.name}.`;
  const { busy, problem, send } = useReply(asked, text, onUnused);
  const decide = async (choice: string, label: string) => {
    const call = async () => {
      await post(`${workflow}:${of.verb}`, of.body(step, choice, text));
      onDecided ? onDecided() : setIsDecided(true);
    };
    await send(choiceWith(label, text), call, () => refresh(cache, ["approvals"]));
  };
  if (isDecided) {
    return <p role="status">Decided.</p>;
  }
  return (
    <section className="answer" aria-label={`${of.title} ${step.name}`}>
      {of === APPROVAL && <p className="question">{visible(step.prompt)}</p>}
      <Acting otherwise={<p className="quiet">{of.viewers}</p>}>
        <label>
          {of.field}
          <textarea
            value={text}
            maxLength={of.maxLength}
            disabled={busy}
            onChange={(event) => setText(event.target.value)}
          />
        </label>
        <div className="choices">
          {of.choices.map(([value, label], index) => (
            <button
              key={value}
              type="button"
              className={index === 0 ? "primary" : undefined}
              disabled={busy}
              onClick={() => void decide(value, label(step.name))}
            >
              {label(step.name)}
            </button>
          ))}
        </div>
      </Acting>
      <Problem error={problem} />
    </section>
  );
}
