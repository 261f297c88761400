import { useState } from "react";
import { save } from "../../api/client";
import { id, query } from "../../api/format";
import { visibleLine } from "../../api/plain";
import { Problem } from "../../components/Problem";

/** Saves an artifact as a file. */
export function Download({ task, attempt, name }: { task: string; attempt: number; name: string }) {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<unknown>();
  const start = async () => {
    setBusy(true);
    setProblem(undefined);
    await save(`${task}/artifacts:download${query({ attempt, name })}`, id(name)).catch(setProblem);
    setBusy(false);
  };
  return (
    <>
      <button type="button" disabled={busy} onClick={() => void start()}>
        Download <span className="hidden">{visibleLine(name)}</span>
      </button>
      <Problem error={problem} />
    </>
  );
}
