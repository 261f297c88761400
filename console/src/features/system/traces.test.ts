import { expect, test } from "vitest";
import { setTraceAddress, traceUrl } from "./traces";

test("a trace has an address once there is one for all of them", () => {
  expect(traceUrl("0af7", "")).toBeUndefined();
  expect(traceUrl(undefined, "https://a.example/{trace}")).toBeUndefined();
  expect(traceUrl("0a/f7", "https://a.example/{trace}?from={trace}")).toBe(
    "https://a.example/0a%2Ff7?from=0a%2Ff7",
  );
});

test("an address is that of a web page, with a place for the id", () => {
  for (const address of ["javascript:alert({trace})", "https://a.example/", "/{trace}"]) {
    expect(() => setTraceAddress(address)).toThrow("{trace}");
  }
});
