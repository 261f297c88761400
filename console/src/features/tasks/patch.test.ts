import { expect, test } from "vitest";
import { filesOf, messageOf } from "./patch";

const PATCH = `diff --git a/src/main.rs b/src/main.rs
index 1111111..2222222 100644
--- a/src/main.rs
+++ b/src/main.rs
@@ -1,3 +1,4 @@
 fn main() {
-    old();
+    new();
+    // \u202e} if admin {
 }
diff --git a/a file.sh b/a file.sh
old mode 100644
new mode 100755
diff --git "a/h\\303\\244.png" "b/h\\303\\244.png"
new file mode 100644
index 0000000..3333333
GIT binary patch
literal 5
Mcmz=4-b

literal 0
HcmV?d00001

diff --git a/old name b/new name
similarity index 90%
rename from old name
rename to new name
--- a/old name\t
+++ b/new name\t
@@ -7 +7 @@ fn context() {
-one
+two
\\ No newline at end of file
diff --git a/removed.txt b/removed.txt
deleted file mode 100644
--- a/removed.txt
+++ /dev/null
@@ -1 +0,0 @@
-last words
`;
const bytes = (text: string) => new TextEncoder().encode(text);

test("every change of a patch is there, and hides nothing", () => {
  const files = filesOf(bytes(PATCH), true);
  expect(files.map(({ path, notes, added, removed }) => [path, notes, added, removed])).toEqual([
    ["src/main.rs", [], 2, 1],
    ["a file.sh", ["mode 100644 is now 100755"], 0, 0],
    ["hä.png", ["new", "binary"], 0, 0],
    ["new name", ["renamed from old name"], 1, 1],
    ["removed.txt", ["deleted"], 0, 1],
  ]);
  const lines = files[0]?.hunks[0]?.lines;
  expect(lines?.[3]).toEqual({ kind: "added", after: 3, text: "    // [U+202E]} if admin {" });
  expect(lines?.[4]).toEqual({ kind: "same", before: 3, after: 4, text: "}" });
  expect(files[3]?.hunks[0]?.lines.at(-1)?.kind).toBe("note");
});

test("of a patch that was cut off the whole hunks are there", () => {
  const whole = bytes(PATCH);
  for (let length = 0; length <= whole.length; length += 7) {
    const files = filesOf(whole.subarray(0, length), false);
    expect(files.length).toBeLessThanOrEqual(5);
  }
  expect(filesOf(whole.subarray(0, 250), false).map((file) => file.path)).toEqual(["src/main.rs"]);
});

test("long lines are cut with the number of what is left out", () => {
  const patch = `diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -0,0 +1 @@\n+${"x".repeat(5000)}\n`;
  expect(filesOf(bytes(patch), true)[0]?.hunks[0]?.lines[0]?.text).toMatch(
    /^x{2000} \[3000 more characters\]$/,
  );
});

test("what is no patch is an error", () => {
  expect(() => filesOf(bytes("diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1,5 +1 @@\n+x\n"), true)).toThrow();
});

test("comments name the line that they are about", () => {
  const comments = [
    { path: "a.rs", line: { kind: "added", after: 3, text: "  let x = 1;" } as const, text: "Why 1? " },
    { path: "a.rs", line: { kind: "removed", before: 9, text: "obsolete" } as const, text: "Keep it." },
  ];
  expect(messageOf(" Nearly there. ", comments)).toBe(
    "Nearly there.\n\nComments on what you have changed:\n\na.rs, added line 3:\n> let x = 1;\nWhy 1?\n\na.rs, removed line 9:\n> obsolete\nKeep it.",
  );
  expect(messageOf("Go on.", [])).toBe("Go on.");
});
