import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { get } from "../../api/client";
import { counted } from "../../api/format";
import { visibleLine } from "../../api/plain";
import type { Artifact, AttemptArtifacts, FetchArtifactsResponse, Task } from "../../api/types";
import { useMayAct } from "../../components/Acting";
import { lazyPart } from "../../components/lazy";
import { Problem } from "../../components/Problem";
import { Continue } from "./Continue";
import { canBeContinued } from "./continuation";
import { Download } from "./Download";
import { Preview } from "./Preview";
import type { Comment } from "./patch";

/** The library that reads patches is loaded when there is one. */
const Changes = lazyPart(() => import("./Changes"));
/** Artifacts of an attempt that are listed at a time. */
const LISTED = 100;

/** What a task has changed, what it has left, and the form that continues it. */
export function Artifacts({ name, task, ended }: { name: string; task: Task; ended: boolean }) {
  const found = useQuery({
    queryKey: ["artifacts", name, ended],
    queryFn: ({ signal }) => get<FetchArtifactsResponse>(`${name}/artifacts`, signal),
  });
  const [comments, setComments] = useState<ReadonlyMap<string, Comment>>(new Map());
  const attempts = found.data?.attempts ?? [];
  const changed = attempts.findLast(({ list }) => list?.changes?.patch);
  const mayAct = useMayAct();
  const canContinue = mayAct && ended && canBeContinued(found.data ?? {});
  const comment = (key: string, one: Comment | undefined) => {
    setComments((before) => {
      const after = new Map(before);
      if (one) {
        after.set(key, one);
      } else {
        after.delete(key);
      }
      return after;
    });
  };
  return (
    <>
      <Problem error={found.error} />
      {changed && (
        <section aria-label="Changes">
          <h2>Changes</h2>
          <p>
            {countOf(changed)}
            {changed.list?.changes?.branch && `, on branch ${visibleLine(changed.list.changes.branch)}`}
            <span className="quiet"> in attempt {changed.attempt}</span>
          </p>
          <Changes
            task={name}
            attempt={changed.attempt ?? 0}
            patch={changed.list?.changes?.patch ?? ""}
            comments={comments}
            onComment={canContinue ? comment : undefined}
          />
        </section>
      )}
      {canContinue && <Continue task={task} comments={[...comments.values()]} />}
      <section aria-label="Artifacts">
        <h2>Artifacts</h2>
        {attempts.map((one) => (
          <List key={one.attempt ?? 0} task={name} of={one} />
        ))}
      </section>
    </>
  );
}

function countOf({ list }: AttemptArtifacts): string {
  const { files = 0, insertions = 0, deletions = 0 } = list?.changes ?? {};
  return `${counted(files, "file")} changed, ${counted(insertions, "line")} added, ${deletions} removed`;
}

function List({ task, of: { attempt = 0, list } }: { task: string; of: AttemptArtifacts }) {
  const [shown, setShown] = useState(LISTED);
  const all = list?.artifacts ?? [];
  return (
    <div className="card">
      <p className="quiet">
        {attempt === 0 ? "Input of the task" : `Attempt ${attempt}`}
        {list?.changes && `: ${countOf({ list })}`}
      </p>
      <ul className="artifacts">
        {all.slice(0, shown).map((artifact) => (
          <Item key={artifact.name} task={task} attempt={attempt} artifact={artifact} />
        ))}
      </ul>
      {all.length > shown && (
        <button type="button" onClick={() => setShown(shown + LISTED)}>
          Show more of {all.length} artifacts
        </button>
      )}
      {list?.skipped?.map((one) => (
        <p key={one.name} className="problem">
          {visibleLine(one.name)} was not kept: {visibleLine(one.reason)}
        </p>
      ))}
    </div>
  );
}

function Item({ task, attempt, artifact }: { task: string; attempt: number; artifact: Artifact }) {
  const [open, setOpen] = useState(false);
  const name = artifact.name ?? "";
  return (
    <li>
      <span className="path">{visibleLine(name)}</span>{" "}
      <span className="quiet">{counted(artifact.size ?? 0, "byte")}</span>
      <div className="choices">
        <button type="button" aria-expanded={open} onClick={() => setOpen(!open)}>
          Preview <span className="hidden">{visibleLine(name)}</span>
        </button>
        <Download task={task} attempt={attempt} name={name} />
      </div>
      {open && <Preview task={task} attempt={attempt} name={name} />}
    </li>
  );
}
