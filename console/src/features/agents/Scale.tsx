import { useState } from "react";
import { get, patch } from "../../api/client";
import { changeAsSeen, ifMatch } from "../../api/conflict";
import { id } from "../../api/format";
import type { Agent } from "../../api/types";
import { Confirm } from "../../components/Confirm";
import { boundsIn } from "./bounds";

/** Changes how many workers an agent has, or stops all of them. */
export function Scale({ agent, act }: { agent: Agent; act: (call: Promise<unknown>) => Promise<void> }) {
  const name = agent.name ?? "";
  const own = id(name);
  // As it was when the dialog was opened: its fields do not change while they are filled in.
  const [seen, setSeen] = useState(agent);
  const { floor, ceiling } = boundsIn(seen.spec);
  const values = (floor: number, ceiling: number) => ({ "At least": `${floor}`, "At most": `${ceiling}` });
  const set = (replicas: number, maxReplicas: number) =>
    act(
      changeAsSeen<Agent>({
        what: own,
        seen,
        read: () => get<Agent>(name),
        values: (agent) => {
          const { floor, ceiling } = boundsIn(agent?.spec);
          return values(floor, ceiling);
        },
        mine: values(replicas, maxReplicas),
        send: (etag) =>
          patch(
            `${name}?updateMask=spec.replicas,spec.maxReplicas`,
            { name, spec: { replicas, maxReplicas } },
            ifMatch(etag),
          ),
      }),
    );
  return (
    <>
      <Confirm
        label="Scale"
        name={`Scale ${own}`}
        question={`How many workers may ${own} have?`}
        onOpen={() => setSeen(agent)}
        onConfirm={(fields) => set(Number(fields.get("floor")), Number(fields.get("ceiling")))}
      >
        <label>
          At least
          <input name="floor" type="number" min={0} defaultValue={floor} required />
        </label>
        <label>
          At most
          <input name="ceiling" type="number" min={0} defaultValue={ceiling} required />
        </label>
      </Confirm>
      <Confirm
        label="Suspend"
        name={`Suspend ${own}`}
        disabled={boundsIn(agent.spec).ceiling === 0}
        question={`Stop the workers of ${own} and start none, until it is scaled again? Its tasks wait.`}
        onOpen={() => setSeen(agent)}
        onConfirm={() => set(0, 0)}
      />
    </>
  );
}
