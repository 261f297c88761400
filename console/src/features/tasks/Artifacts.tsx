import { useQuery } from "@tanstack/react-query";
import { get } from "../../api/client";
import { Problem } from "../../components/Problem";

interface Attempts {
  attempts?: {
    attempt?: number;
    list?: {
      artifacts?: { name?: string; size?: string }[];
      changes?: {
        files?: string;
        insertions?: string;
        deletions?: string;
        branch?: string;
        pushed?: boolean;
      };
    };
  }[];
}

/** What each attempt has left, and what it has changed in its repository. */
export function Artifacts({ task }: { task: string }) {
  const found = useQuery({
    queryKey: ["artifacts", task],
    queryFn: ({ signal }) => get<Attempts>(`${task}/artifacts`, signal),
  });
  return (
    <section aria-label="Artifacts">
      <h2>Artifacts</h2>
      <Problem error={found.error} />
      {found.data?.attempts?.map(({ attempt, list }) => (
        <div key={attempt} className="card">
          <p className="quiet">Attempt {attempt}</p>
          {list?.changes && (
            <p>
              {list.changes.files ?? 0} files changed, {list.changes.insertions ?? 0} lines added,{" "}
              {list.changes.deletions ?? 0} removed
              {list.changes.branch && `, on branch ${list.changes.branch}`}
            </p>
          )}
          <ul>
            {list?.artifacts?.map((artifact) => (
              <li key={artifact.name}>
                {artifact.name} <span className="quiet">{artifact.size ?? 0} bytes</span>
              </li>
            ))}
          </ul>
        </div>
      ))}
      <p className="quiet">
        <code>rota download</code> fetches them, <code>rota diff</code> shows the changes.
      </p>
    </section>
  );
}
