import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { post } from "../../api/client";
import { fieldsOf, visible, visibleLine } from "../../api/plain";
import type { InputRequest, TaskInput } from "../../api/types";
import { Acting } from "../../components/Acting";
import { Problem } from "../../components/Problem";
import { choiceWith, type Unused, useReply } from "../../components/useReply";

/** A question or a request for a permission, with the form that answers it. */
export function Answer({
  task,
  request,
  onUnused,
}: {
  task: string;
  request: InputRequest;
  onUnused: (unused: Unused) => void;
}) {
  const cache = useQueryClient();
  const [text, setText] = useState("");
  const rules = (request.rules ?? []).map((rule) => rule.rule ?? "");
  const isPermission = request.kind === "INPUT_KIND_PERMISSION";
  const asked = isPermission ? `May it use ${visibleLine(request.tool)}?` : (request.prompt ?? "");
  const { busy, problem, send: reply } = useReply(asked, text, onUnused);
  const send = (input: TaskInput, given = input.text ?? "") =>
    reply(
      given,
      () => post(`${task}:sendInput`, { input: { requestId: request.requestId, ...input } }),
      () => cache.invalidateQueries(),
    );
  return (
    <form
      className="answer card"
      aria-label="Answer"
      onSubmit={(event) => {
        event.preventDefault();
        void send({ text });
      }}
    >
      <p className="question">
        {isPermission && `May it use ${visibleLine(request.tool)}? `}
        {visible(request.prompt)}
      </p>
      {request.inputJson && <Input json={request.inputJson} />}
      {request.inputIncomplete && (
        <p className="problem">Only a part of the input is shown: it is too large.</p>
      )}
      <Acting otherwise={<p className="quiet">Viewers cannot answer.</p>}>
        {!isPermission && (request.choices ?? []).length > 0 && (
          <div className="choices">
            {request.choices?.map((choice) => (
              <button key={choice} type="button" disabled={busy} onClick={() => void send({ text: choice })}>
                {visibleLine(choice)}
              </button>
            ))}
          </div>
        )}
        <label>
          {isPermission ? "Reason of a denial" : "Answer"}
          <textarea value={text} onChange={(event) => setText(event.target.value)} disabled={busy} />
        </label>
        {isPermission ? (
          <div className="choices">
            <button
              type="button"
              className="primary"
              disabled={busy}
              onClick={() => void send({ decision: "DECISION_ALLOW" }, "Allow once")}
            >
              Allow once
            </button>
            {rules.length > 0 && (
              <button
                type="button"
                disabled={busy}
                onClick={() =>
                  void send(
                    { decision: "DECISION_ALLOW", scope: "PERMISSION_SCOPE_SESSION", rules },
                    "Allow for the session",
                  )
                }
              >
                Allow for the session: {rules.map(visibleLine).join(", ")}
              </button>
            )}
            <button
              type="button"
              disabled={busy}
              onClick={() => void send({ decision: "DECISION_DENY", text }, choiceWith("Deny", text))}
            >
              Deny
            </button>
          </div>
        ) : (
          <div>
            <button type="submit" className="primary" disabled={busy || text.trim() === ""}>
              Answer
            </button>
          </div>
        )}
      </Acting>
      <Problem error={problem} />
    </form>
  );
}

/** The input of a tool in full, one field to a line. */
function Input({ json }: { json: string }) {
  const fields = fieldsOf(json);
  if (!fields) {
    return <pre>{visible(json)}</pre>;
  }
  return (
    <dl className="pairs input">
      {fields.map(([name, text]) => (
        <div key={name}>
          <dt>{visibleLine(name)}</dt>
          <dd>
            <pre>{visible(text)}</pre>
          </dd>
        </div>
      ))}
    </dl>
  );
}
