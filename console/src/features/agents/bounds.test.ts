import { expect, test } from "vitest";
import { boundsOf } from "./bounds";

test("the bounds of an agent are those of its pool", () => {
  expect(boundsOf(undefined)).toBe("0 to 1");
  expect(boundsOf({ replicas: 2 })).toBe("2");
  expect(boundsOf({ replicas: 2, maxReplicas: 5 })).toBe("2 to 5");
  expect(boundsOf({ maxReplicas: 0 })).toBe("suspended");
  expect(boundsOf({ management: "MANAGEMENT_EXTERNAL" })).toBe("external");
});
