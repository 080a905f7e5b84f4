import assert from "node:assert/strict";
import { test } from "node:test";

import { fittingFont, room } from "../dist/fit.js";

const measure = (font) => ({ wide: font * 0.602, high: Math.round(font * 1.17) });

test("there is room for what xterm.js draws", () => {
  assert.deepEqual(room(measure, 1003, 704, 14, 1), { cols: 119, rows: 44 });
  assert.deepEqual(room(measure, 1002, 703, 14, 1), { cols: 118, rows: 43 });
  assert.equal(room(() => ({ wide: 8, high: 16.3 }), 800, 165, 14, 2).rows, 10, "lines are whole pixels of the device");
  assert.equal(room(() => ({ wide: 8, high: 16.3 }), 800, 164, 14, 2).rows, 9);
});

test("the font is the largest in which a session has room", () => {
  assert.equal(fittingFont(measure, 1280, 800, 80, 24, 14, 1), 14, "never larger than usual");
  for (const [wide, high, ratio] of [[590, 600, 2], [590, 600, 1], [700, 340, 1.5]]) {
    const font = fittingFont(measure, wide, high, 100, 30, 14, ratio);
    const fits = (size) => {
      const there = room(measure, wide, high, size, ratio);
      return there.cols >= 100 && there.rows >= 30;
    };
    assert.ok(fits(font) && !fits(font + 0.25), `${font}`);
  }
  assert.equal(fittingFont(measure, 10, 10, 500, 500, 14, 1), 9, "never too small to be read");
});
