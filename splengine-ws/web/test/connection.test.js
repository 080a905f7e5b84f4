import assert from "node:assert/strict";
import { test } from "node:test";

import { Connection } from "../dist/connection.js";

class FakeSocket {
  sent = [];
  readyState = 0;
  open() {
    this.readyState = 1;
    this.onopen();
  }
  say(frame) {
    this.onmessage({ data: typeof frame === "object" && !(frame instanceof ArrayBuffer) ? JSON.stringify(frame) : frame });
  }
  send(data) {
    this.sent.push(typeof data === "string" ? JSON.parse(data) : [...data]);
  }
  break(code = 1006) {
    this.readyState = 3;
    this.onclose({ code, reason: "" });
  }
  close() {
    this.readyState = 3;
  }
}

const session = { type: "session", sessionId: "spl-a-1", cols: 80, rows: 24, access: "control", epoch: "e", offset: 10, client: "c-1" };
const output = (offset, text) => {
  const frame = new Uint8Array(9 + text.length);
  frame[0] = 1;
  new DataView(frame.buffer).setBigUint64(1, BigInt(offset));
  frame.set(new TextEncoder().encode(text), 9);
  return frame.buffer;
};

test("a connection that breaks goes on where it was, and types nothing twice", (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const sockets = [];
  const states = [];
  const connection = new Connection(
    { kind: "new", request: { command: "cat" } },
    { frame() {}, bytes() {}, state: (state) => states.push(state) },
    () => sockets[sockets.push(new FakeSocket()) - 1],
  );
  connection.resize(100, 30);
  connection.start();
  sockets[0].open();
  assert.deepEqual(sockets[0].sent[0], { type: "new_session", cols: 100, rows: 30, command: "cat" });
  connection.input(Uint8Array.of(97));
  assert.equal(sockets[0].sent.length, 1, "there is no session to type in yet");
  sockets[0].say(session);
  assert.deepEqual(sockets[0].sent.length, 1, "what was typed before the session was is not for it");
  connection.input(Uint8Array.of(98, 99));
  assert.deepEqual(sockets[0].sent[1], [0x11, 0, 0, 0, 0, 0, 0, 0, 0, 98, 99]);
  sockets[0].say(output(10, "hello"));
  sockets[0].break();
  assert.equal(states.at(-1), "again");
  context.mock.timers.tick(600);
  sockets[1].open();
  assert.deepEqual(sockets[1].sent[0], {
    type: "attach", sessionId: "spl-a-1", epoch: "e", client: "c-1", offset: 15, cols: 100, rows: 30,
  });
  sockets[1].say(session);
  assert.equal(sockets[1].sent.length, 1, "nothing is sent before the server says how far it is");
  sockets[1].say({ type: "input_ack", number: 1 });
  assert.deepEqual(sockets[1].sent[1], [0x11, 0, 0, 0, 0, 0, 0, 0, 1, 99]);
  sockets[1].break(4404);
  assert.equal(states.at(-1), "over");
  context.mock.timers.tick(60_000);
  assert.equal(sockets.length, 2);
});
