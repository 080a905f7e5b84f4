import assert from "node:assert/strict";
import { test } from "node:test";

import { EventParser } from "../dist/events.js";

test("events are parted however they come", () => {
  const text = "event: a\nid: 1\ndata: {\"x\":1}\n\n:\n\nevent: b\nid: 2\ndata: two\n\nid: 3\ndata: unfinished";
  for (let cut = 0; cut <= text.length; cut += 1) {
    const parser = new EventParser();
    const events = [...parser.push(text.slice(0, cut)), ...parser.push(text.slice(cut))];
    assert.deepEqual(events, [{ id: "1", data: '{"x":1}' }, { id: "2", data: "two" }]);
  }
});
