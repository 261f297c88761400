import { afterEach, expect, test, vi } from "vitest";
import { ApiError, errorOf, get, isTransient, newKey } from "./client";

afterEach(() => {
  vi.unstubAllGlobals();
});

test("errors have their reason and hint", () => {
  const error = errorOf(
    {
      code: 3,
      message: "spec.prompt is required",
      details: [
        { "@type": "type.googleapis.com/google.rpc.ErrorInfo", reason: "INVALID_FIELD" },
        { fieldViolations: [{ field: "spec.prompt", description: "is required" }] },
        { links: [{ description: "set it" }] },
      ],
    },
    2,
  );
  expect([error.code, error.reason, error.hint]).toEqual([
    3,
    "INVALID_FIELD",
    "spec.prompt: is required; set it",
  ]);
});

test("refusals are not tried again", () => {
  expect([3, 5, 7, 9, 12, 16].filter((code) => isTransient(new ApiError(code, "")))).toEqual([]);
  expect([4, 8, 13, 14].filter((code) => isTransient(new ApiError(code, "")))).toEqual([4, 8, 13, 14]);
});

test("keys differ", () => {
  expect(newKey()).toMatch(/^[0-9a-f]{32}$/);
  expect(newKey()).not.toBe(newKey());
});

test("an answer that ends early, or is none of the API, is an error with a text for people", async () => {
  const failureOf = (body: BodyInit) => {
    vi.stubGlobal("fetch", async () => new Response(body));
    return get("namespaces/default/tasks").catch((error: unknown) => error);
  };
  const interrupted = new ReadableStream({ start: (body) => body.error(new TypeError("network error")) });
  expect(await failureOf(interrupted)).toEqual(new ApiError(14, "the connection was interrupted"));
  expect(await failureOf("<html>")).toEqual(new ApiError(14, "the answer is not that of a control plane"));
});
