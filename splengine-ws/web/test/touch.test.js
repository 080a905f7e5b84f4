import assert from "node:assert/strict";
import { test } from "node:test";

import { arrow, controlled } from "../dist/touch.js";

test("arrows are sent as the program wants them", () => {
  assert.equal(arrow("A", false, false), "\x1b[A");
  assert.equal(arrow("A", true, false), "\x1bOA");
  assert.equal(arrow("C", true, true), "\x1b[1;5C");
});

test("Control makes what a keyboard makes", () => {
  const of = (letter) => controlled(letter.charCodeAt(0));
  assert.deepEqual([of("c"), of("C"), of("["), of("@"), of(" "), of("/"), of("?")], [3, 3, 27, 0, 0, 31, 127]);
  assert.deepEqual([of("1"), of("\r"), of("~")], [0x31, 0x0d, 0x1e], "others stay, or are as a terminal has them");
});
