import { useState } from "react";
import { Problem } from "../../components/Problem";
import { setTraceAddress, traceAddress } from "./traces";

/** Where the traces of tasks are linked to, for this browser. */
export function TraceAddress() {
  const [problem, setProblem] = useState<unknown>();
  const [saved, setSaved] = useState(false);
  return (
    <>
      <h2>Traces</h2>
      <form
        className="bar"
        onChange={() => setSaved(false)}
        onSubmit={(event) => {
          event.preventDefault();
          setProblem(undefined);
          try {
            setTraceAddress(String(new FormData(event.currentTarget).get("address") ?? "").trim());
            setSaved(true);
          } catch (error) {
            setProblem(error);
          }
        }}
      >
        <label>
          Address of a trace, for this browser
          <input
            name="address"
            defaultValue={traceAddress()}
            placeholder="https://jaeger.example/trace/{trace}"
            maxLength={1024}
            size={32}
          />
        </label>
        <button type="submit">Use address</button>
        <span role="status">{saved && "Address kept."}</span>
      </form>
      <Problem error={problem} />
    </>
  );
}
