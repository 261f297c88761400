import { expect, test } from "vitest";
import { Lines, MAX_CHARACTERS, MAX_LINES } from "./lines";
import { startOf } from "./useLogStart";

test("as many entries are read as a page keeps", () => {
  // One line each.
  expect(startOf(1_000_000, { entries: 200, lines: 200, characters: 200 * 30 })).toBe(1_000_000 - MAX_LINES);
  // 64 KiB each, of few lines.
  const large = { entries: 64, lines: 128, characters: 64 << 16 };
  expect(startOf(16_384, large)).toBe(16_384 - (MAX_CHARACTERS >> 16));
  // Two lines an entry.
  expect(startOf(100_000, { entries: 100, lines: 200, characters: 100 })).toBe(100_000 - MAX_LINES / 2);
});

test("a log without texts is read whole", () => {
  expect(startOf(3000, { entries: 0, lines: 0, characters: 0 })).toBe(0);
  expect(startOf(3000, { entries: 200, lines: 0, characters: 0 })).toBe(0);
  expect(startOf(3000, { entries: 200, lines: 200, characters: 2000 })).toBe(0);
});

test("what is not read has a note, also after lines were left out", () => {
  const lines = new Lines();
  lines.beginAfter(500);
  const output = (logSeq: number) => ({
    logSeq: String(logSeq),
    output: { stream: "OUTPUT_STREAM_STDOUT" as const, data: btoa("x\n") },
  });
  lines.add([output(501)]);
  expect(lines.all.map(({ text }) => text)).toEqual([
    "500 earlier entries are left out here: rota logs prints all of them",
    "x",
  ]);
  lines.add(Array.from({ length: MAX_LINES }, (_, index) => output(502 + index)));
  expect(lines.all[0]?.text).toMatch(/^500 earlier entries and [0-9]+ earlier lines are left out here/);
  expect(lines.all.filter(({ kind }) => kind === "note")).toHaveLength(1);
});
