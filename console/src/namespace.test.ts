import { afterEach, expect, test, vi } from "vitest";

function storage() {
  const values = new Map<string, string>();
  return {
    getItem: (key: string) => values.get(key) ?? null,
    setItem: (key: string, value: string) => values.set(key, value),
  };
}

/** Opens a window of a browser, or reloads the one that a storage belongs to. */
async function open(ofWindow: ReturnType<typeof storage>) {
  vi.resetModules();
  vi.stubGlobal("sessionStorage", ofWindow);
  const module = await import("./namespace");
  return {
    ...module,
    setNamespace: (value: string) => {
      vi.stubGlobal("sessionStorage", ofWindow);
      module.setNamespace(value);
    },
  };
}

afterEach(() => vi.unstubAllGlobals());

test("each window has a namespace of its own, which a new one takes over", async () => {
  vi.stubGlobal("localStorage", storage());
  const one = storage();
  const first = await open(one);
  expect(first.namespace()).toBe("default");
  first.setNamespace("mine");
  const second = await open(storage());
  expect(second.namespace()).toBe("mine");
  second.setNamespace("other");
  expect(first.namespace()).toBe("mine");
  expect((await open(one)).namespace()).toBe("mine");
});
