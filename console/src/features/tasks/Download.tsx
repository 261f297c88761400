import { address } from "../../api/client";
import { id, query } from "../../api/format";
import { visibleLine } from "../../api/plain";

/** A link to an artifact, which the browser saves while it arrives: the page holds nothing of it. */
export function Download({ task, attempt, name }: { task: string; attempt: number; name: string }) {
  return (
    <a
      className="button"
      href={address(`${task}/artifacts:download${query({ attempt, name })}`)}
      download={id(name)}
    >
      Download <span className="hidden">{visibleLine(name)}</span>
    </a>
  );
}
