import { expect, test } from "vitest";
import { editable, replayedBy, replayOf } from "./replay";

const before = {
  uid: "u",
  alias: "build",
  priority: 7,
  labels: { team: "shop", "rota.dev/cluster": "c", "rota.dev/replayed": "x" },
  spec: { prompt: "Build it", startTime: "2030-01-01T00:00:00Z", secretNames: [] },
};

test("a task takes the place of a failed one", () => {
  expect(editable(before)).toEqual({ prompt: "Build it" });
  const spec = { prompt: "Build it again" };
  const labels = { team: "shop", "rota.dev/replay-of": "u" };
  expect(replayOf(before, spec)).toEqual({ spec, labels, alias: "build", priority: 7 });
  expect(replayedBy(before.labels, { uid: "v" })).toEqual({ ...before.labels, "rota.dev/replayed": "v" });
});

test("what a task lacks is left out", () => {
  expect(replayOf({ uid: "u" }, {})).toEqual({ spec: {}, labels: { "rota.dev/replay-of": "u" } });
});
