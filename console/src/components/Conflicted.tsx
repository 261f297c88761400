import type { Conflict } from "../api/conflict";
import { visible } from "../api/plain";
import { hidden, Table } from "./Table";

/** Both versions of what two people have changed, and the choice between them. */
export function Conflicted({
  conflict,
  act,
}: {
  conflict: Conflict;
  /** Gets the change that settles it. */
  act: (call: Promise<unknown>) => Promise<void>;
}) {
  const { before, theirs, mine } = conflict;
  return (
    <section className="card" aria-label="Changed meanwhile">
      <p className="problem" role="alert">
        {visible(conflict.message)}. Nothing of yours was saved.
      </p>
      <Table label="Both versions" heads={[hidden("Value"), "When you began", "Now", "Yours"]}>
        {Object.keys(mine).map((name) => (
          <tr key={name}>
            <td>{name}</td>
            <td>{before[name]}</td>
            <td>{theirs[name]}</td>
            <td>{mine[name]}</td>
          </tr>
        ))}
      </Table>
      <div className="choices">
        <button type="button" onClick={() => void act(conflict.overwrite()).catch(() => {})}>
          Overwrite with mine
        </button>
        <button type="button" className="primary" onClick={() => void act(Promise.resolve()).catch(() => {})}>
          Keep what is there
        </button>
      </div>
    </section>
  );
}
