import assert from "node:assert/strict";
import { test } from "node:test";

import { ackFrame, afterClose, backoff, inputFrame, Outbox, readBinary, readText } from "../dist/protocol.js";

const bytes = (text) => new TextEncoder().encode(text);

test("frames are laid out as PROTOCOL.md says", () => {
  assert.deepEqual([...inputFrame(258, bytes("hi"))], [0x11, 0, 0, 0, 0, 0, 0, 1, 2, 0x68, 0x69]);
  assert.deepEqual([...ackFrame(7)], [0x12, 0, 0, 0, 0, 0, 0, 0, 7]);
  const output = readBinary(Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 1, 2, 0x78).buffer);
  assert.equal(output.kind, "output");
  assert.equal(output.offset, 258);
  assert.deepEqual([...output.data], [0x78]);
  const snapshot = readBinary(Uint8Array.of(2, 0, 0, 0, 0, 0, 0, 0, 9, 0, 80, 0, 24, 0x78).buffer);
  assert.deepEqual([snapshot.offset, snapshot.cols, snapshot.rows], [9, 80, 24]);
  for (const bad of [[], [1], [3, 0, 0, 0, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0, 0, 0, 1]]) {
    assert.equal(readBinary(Uint8Array.from(bad).buffer), null);
  }
  assert.equal(readText("nonsense"), null);
  assert.equal(readText("7"), null);
});

test("what did not come is sent again, and only that", () => {
  const outbox = new Outbox();
  outbox.push(bytes("hello "));
  assert.deepEqual([...outbox.frames()], [inputFrame(0, bytes("hello "))]);
  assert.deepEqual([...outbox.frames()], []);
  outbox.push(bytes("world"));
  assert.deepEqual([...outbox.frames()], [inputFrame(6, bytes("world"))]);
  outbox.acknowledge(6);
  outbox.restart(8);
  assert.deepEqual([...outbox.frames()], [inputFrame(8, bytes("rld"))]);
  outbox.acknowledge(11);
  assert.equal(outbox.length, 0);
  outbox.restart(20);
  outbox.push(bytes("x"));
  assert.deepEqual([...outbox.frames()], [inputFrame(20, bytes("x"))]);
});

test("a large paste goes in windows", () => {
  const outbox = new Outbox();
  outbox.push(new Uint8Array(1_000_000));
  let sent = [...outbox.frames()].reduce((sum, frame) => sum + frame.length - 9, 0);
  assert.ok(sent <= 256 * 1024);
  while (outbox.length > 0) {
    outbox.acknowledge(sent);
    sent += [...outbox.frames()].reduce((sum, frame) => sum + frame.length - 9, 0);
  }
  assert.equal(sent, 1_000_000);
});

test("connections come back when it makes sense, ever later", () => {
  assert.equal(afterClose(1012), "again");
  assert.equal(afterClose(1006), "again");
  assert.equal(afterClose(4401), "login");
  for (const code of [1000, 4403, 4404, 4408, 4429]) assert.equal(afterClose(code), "over");
  assert.equal(backoff(0, () => 1), 500);
  assert.equal(backoff(20, () => 1), 10_000);
  assert.equal(backoff(20, () => 0), 5_000);
});
