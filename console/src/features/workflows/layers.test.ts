import { expect, test } from "vitest";
import { around, layers } from "./layers";

const step = (name: string, ...needs: string[]) => ({ name, needs: needs.map((step) => ({ step })) });
const names = ({ nodes, columns }: ReturnType<typeof layers>) =>
  columns.map((column) => column.map((index) => nodes[index]?.name));

test("each step is right of all that it needs, and finally-steps of all others", () => {
  const steps = [step("d", "b", "c"), step("a"), step("b", "a"), step("c", "b")];
  const all = layers(steps, [step("g", "f"), step("f")]);
  expect(names(all)).toEqual([["a"], ["b"], ["c"], ["d"], ["f"], ["g"]]);
  const right = (index: number) => (all.nodes[index]?.x ?? 0) + (all.nodes[index]?.width ?? 0);
  for (const node of all.nodes) {
    for (const need of node.needs) {
      expect(right(need)).toBeLessThan(node.x);
    }
  }
});

test("steps are near to those that they need", () => {
  // In the order of the specification, the lines would cross.
  const steps = [step("a"), step("b"), step("c"), step("x", "c"), step("y", "b"), step("z", "a")];
  expect(names(layers(steps))[1]).toEqual(
    names(layers(steps))[0]?.map((name) => ({ a: "z", b: "y", c: "x" })[name ?? ""]),
  );
});

test("no two steps share a place", () => {
  const steps = Array.from({ length: 300 }, (_, index) =>
    step(`s${index}`, ...(index > 9 ? [`s${index % 10}`, `s${Math.floor(index / 2)}`] : [])),
  );
  const places = layers(steps).nodes.map(({ x, y }) => `${x} ${y}`);
  expect(new Set(places).size).toBe(300);
});

test("10,000 steps of any shape have a place", () => {
  const chain = Array.from({ length: 10_000 }, (_, index) =>
    step(`s${index}`, ...(index ? [`s${index - 1}`] : [])),
  );
  expect(layers(chain).columns.length).toBe(10_000);
  const fan = [step("a"), ...Array.from({ length: 9998 }, (_, index) => step(`s${index}`, "a"))];
  const join = { name: "z", needs: fan.slice(1).map(({ name }) => ({ step: name })) };
  expect(layers([...fan, join]).columns.map((column) => column.length)).toEqual([1, 9998, 1]);
});

test("a need that is missing, and a cycle, end no page", () => {
  expect(
    names(layers([step("a", "missing"), step("b", "c"), step("c", "b")]))
      .flat()
      .sort(),
  ).toEqual(["a", "b", "c"]);
  expect(layers([]).columns).toEqual([]);
});

test("what is around a step is what it needs and what needs it", () => {
  const { nodes } = layers([step("a"), step("b", "a"), step("c", "b"), step("d", "a"), step("e", "c", "d")]);
  expect([...around(nodes, "c")].sort()).toEqual(["a", "b", "c", "e"]);
  expect(around(nodes, "missing").size).toBe(0);
});
