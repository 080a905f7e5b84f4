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
    { frame() {}, bytes() {}, untyped() {}, state: (state) => states.push(state) },
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

const setUp = (context, target = { kind: "attach", sessionId: "spl-a-1" }) => {
  context.mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"] });
  const sockets = [];
  const states = [];
  let untyped = 0;
  const connection = new Connection(
    target,
    { frame() {}, bytes() {}, untyped: () => (untyped += 1), state: (state) => states.push(state) },
    () => sockets[sockets.push(new FakeSocket()) - 1],
  );
  connection.start();
  context.after(() => connection.stop());
  return { connection, sockets, states, untyped: () => untyped };
};

test("a peer that went away without a word is noticed", (context) => {
  const { sockets, states } = setUp(context);
  sockets[0].open();
  sockets[0].say(session);
  const pass = (seconds) => {
    for (let second = 0; second < seconds; second += 1) context.mock.timers.tick(1000);
  };
  pass(5);
  assert.deepEqual(sockets[0].sent.at(-1), { type: "ping" });
  sockets[0].say({ type: "pong" });
  pass(7);
  assert.equal(states.at(-1), "open", "it has answered, and has time for the next answer");
  pass(1);
  assert.equal(states.at(-1), "silent", "an answer is late");
  sockets[0].say({ type: "pong" });
  assert.equal(states.at(-1), "open", "it was late, not gone");
  pass(12);
  assert.equal(states.at(-1), "silent");
  pass(1);
  assert.equal(states.at(-1), "again", "it is silent");
  assert.equal(sockets[0].readyState, 3, "the old one is closed");
  context.mock.timers.tick(500);
  assert.equal(sockets.length, 2);
});

test("a peer that never opens is given up", (context) => {
  const { sockets, states } = setUp(context);
  context.mock.timers.tick(15_000);
  assert.equal(states.at(-1), "again");
  context.mock.timers.tick(500);
  assert.equal(sockets.length, 2);
  sockets[1].open();
  sockets[0].open();
  assert.equal(sockets[0].sent.length, 0, "one that opens late is not spoken to");
  assert.equal(sockets[1].sent.length, 1, "nor is the other on its behalf");
});

test("a hurry does not open a second one", (context) => {
  const { connection, sockets, states } = setUp(context);
  connection.hurry();
  assert.equal(sockets.length, 1, "one is on its way");
  sockets[0].open();
  sockets[0].say(session);
  connection.hurry();
  assert.deepEqual(sockets[0].sent.at(-1), { type: "ping" }, "what seems open is tried");
  sockets[0].break();
  connection.hurry();
  connection.hurry();
  assert.equal(sockets.length, 2);
  context.mock.timers.tick(600);
  assert.equal(sockets.length, 2, "the attempt that waited is not made as well");
  assert.equal(states.at(-1), "connecting");
});

test("input that can't be known to have come is told of, not typed again", (context) => {
  const { connection, sockets, untyped } = setUp(context);
  sockets[0].open();
  sockets[0].say(session);
  connection.input(Uint8Array.of(97));
  sockets[0].break(1012);
  context.mock.timers.tick(600);
  sockets[1].open();
  sockets[1].say({ ...session, client: "c-2", epoch: "f" });
  assert.equal(untyped(), 1);
  assert.equal(sockets[1].sent.length, 1);
});

test("too much input is refused, in words", (context) => {
  const { connection } = setUp(context);
  assert.equal(connection.input(new Uint8Array(8 * 1024 * 1024)), true);
  assert.equal(connection.input(new Uint8Array(1)), false);
});

test("programs can ask for the colours from the beginning, and after every break", (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const sockets = [];
  const connection = new Connection(
    { kind: "new", request: {} },
    { frame() {}, bytes() {}, untyped() {}, state() {} },
    () => sockets[sockets.push(new FakeSocket()) - 1],
  );
  context.after(() => connection.stop());
  const light = { foreground: "#000000", background: "#ffffff", cursor: "#0000ff" };
  connection.colors(light);
  connection.start();
  sockets[0].open();
  assert.deepEqual(sockets[0].sent.map((frame) => frame.type), ["colors", "new_session"]);
  assert.deepEqual(sockets[0].sent[0], { type: "colors", ...light });
  sockets[0].say(session);
  const dark = { ...light, background: "#000000" };
  connection.colors(dark);
  assert.deepEqual(sockets[0].sent.at(-1), { type: "colors", ...dark });
  sockets[0].break();
  context.mock.timers.tick(600);
  sockets[1].open();
  assert.deepEqual(sockets[1].sent[0], { type: "colors", ...dark });
});
