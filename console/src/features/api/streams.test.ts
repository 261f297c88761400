import { expect, test } from "vitest";
import openapi from "../../../../docs/reference/openapi.json?raw";
import { isStream } from "./streams";

interface Operation {
  responses: { 200: { content: object } };
}

test("the streams of the document are known, and no other call is taken for one", () => {
  const { paths } = JSON.parse(openapi) as { paths: Record<string, Record<string, Operation>> };
  const found = { streams: 0, calls: 0 };
  for (const [path, operations] of Object.entries(paths)) {
    for (const operation of Object.values(operations)) {
      const isWatched = "text/event-stream" in operation.responses[200].content;
      expect(isStream(`https://rota.example/base${path}?pageSize=1`), path).toBe(isWatched);
      found[isWatched ? "streams" : "calls"] += 1;
    }
  }
  expect(found.streams).toBeGreaterThan(3);
  expect(found.calls).toBeGreaterThan(50);
});
