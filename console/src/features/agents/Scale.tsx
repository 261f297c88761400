import { patch } from "../../api/client";
import { id } from "../../api/format";
import type { Agent } from "../../api/types";
import { Confirm } from "../../components/Confirm";
import { boundsIn } from "./bounds";

/** Changes how many workers an agent has, or stops all of them. */
export function Scale({ agent, act }: { agent: Agent; act: (call: Promise<unknown>) => Promise<void> }) {
  const name = agent.name ?? "";
  const own = id(name);
  const { floor, ceiling } = boundsIn(agent.spec);
  const set = (replicas: number, maxReplicas: number) =>
    act(
      patch(`${name}?updateMask=spec.replicas,spec.maxReplicas`, { name, spec: { replicas, maxReplicas } }),
    );
  return (
    <>
      <Confirm
        label="Scale"
        name={`Scale ${own}`}
        question={`How many workers may ${own} have?`}
        onConfirm={(_key, fields) => set(Number(fields.get("floor")), Number(fields.get("ceiling")))}
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
        disabled={ceiling === 0}
        question={`Stop the workers of ${own} and start none, until it is scaled again? Its tasks wait.`}
        onConfirm={() => set(0, 0)}
      />
    </>
  );
}
