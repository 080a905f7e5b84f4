// avsc and avro-js against the Avro RPC server, as their users call it: over plain sockets and HTTP.
"use strict";

const { after, before, test } = require("node:test");
const assert = require("node:assert/strict");
const { spawn } = require("node:child_process");
const { once } = require("node:events");
const { mkdtempSync, readFileSync, writeFileSync } = require("node:fs");
const http = require("node:http");
const net = require("node:net");
const { tmpdir } = require("node:os");
const { join } = require("node:path");
const { createInterface } = require("node:readline");
const { setTimeout } = require("node:timers/promises");
const avsc = require("avsc");
const avroJs = require("avro-js");

const token = "alices-very-long-token";
const newRoot = () => mkdtempSync(join(tmpdir(), "splengine-avro-"));
const root = newRoot();
// What the users of the source design have: two records, two messages, no errors.
const seed = {
  protocol: "SPlectrumEngine",
  namespace: "com.splectrum.rpc",
  types: [
    { name: "Command", type: "record", fields: [
      { name: "command", type: "string" },
      { name: "args", type: { type: "array", items: "string" } },
      { name: "workdir", type: ["null", "string"], default: null },
      { name: "sessionId", type: ["null", "string"], default: null },
    ] },
    { name: "ExecutionResult", type: "record", fields: [
      { name: "exitCode", type: "int" },
      { name: "stdout", type: "string" },
      { name: "stderr", type: "string" },
      { name: "duration", type: "long" },
      { name: "sessionId", type: "string" },
    ] },
  ],
  messages: {
    execute: { request: [{ name: "command", type: "Command" }], response: "ExecutionResult" },
  },
};
let server, full, anonymous;

// No two servers share a root.
async function start(at, ...flags) {
  const child = spawn(
    process.env.SPLENGINE_SERVER,
    ["--root", at, "--ws", "off", "--ssh", "off", "--http", "127.0.0.1:0", "--avro", "127.0.0.1:0", "--grace", "1",
      "--shell", "/bin/sh", ...flags],
    { stdio: ["ignore", "pipe", "inherit"], env: { PATH: process.env.PATH, RUST_LOG: "error" } },
  );
  const [line] = await once(createInterface({ input: child.stdout }), "line");
  const ready = JSON.parse(line);
  const [host, port] = ready.avro.split(":");
  return { child, host, port: Number(port), http: ready.http, avro: ready.avro };
}

async function stop({ child }) {
  child.kill("SIGTERM");
  const [code] = await once(child, "exit");
  assert.equal(code, 0);
}

before(async () => {
  server = await start(root, "--token", `alice=${token}`);
  full = await (await fetch(`http://${server.avro}/avro/protocol`)).json();
});
after(() => stop(server));

// A client of avsc's over a plain socket, whose calls carry credentials.
async function connect(protocol, { at = server, bearer = token, meta = {} } = {}) {
  const socket = net.connect(at.port, at.host);
  await once(socket, "connect");
  const service = avsc.Service.forProtocol(protocol);
  const client = service.createClient({ buffering: true, server: undefined });
  if (bearer) {
    client.use((wreq, wres, next) => {
      wreq.headers["spl-authorization"] = Buffer.from(`Bearer ${bearer}`);
      for (const [key, value] of Object.entries(meta)) wreq.headers[key] = Buffer.from(value);
      next();
    });
  }
  const channel = client.createChannel(socket);
  const call = (name, ...args) =>
    new Promise((resolve, reject) =>
      client[name](...args, (error, value) => (error ? reject(error) : resolve(value))));
  return { call, client, channel, socket, close: () => (channel.destroy(true), socket.destroy()) };
}

const command = (text, args = []) => ({ command: text, args, workdir: null, sessionId: null });
const job = (commands, more = {}) => ({
  commands, jobId: null, stopOnError: true, parallelism: 1, timeoutMs: null, workdir: null,
  sessionId: null, labels: {}, ...more,
});
const ask = (text, more = {}) => ({
  command: text, args: [], workdir: null, sessionId: null, env: {}, stdin: null, timeout: null,
  outputLimit: null, background: "kill", limits: null, ...more,
});

test("avsc: the source design's own text, over a socket", async () => {
  const { call, close } = await connect(seed);
  const result = await call("execute", command("echo", ["hi", "there"]));
  assert.equal(result.exitCode, 0);
  assert.equal(result.stdout, "hi there\n");
  assert.match(result.sessionId, /^spl-alice-/);
  const failed = await call("execute", command("sh -c 'echo no >&2; exit 7'"));
  assert.deepEqual([failed.exitCode, failed.stderr], [7, "no\n"]);
  await assert.rejects(call("execute", command("no-such-program")), /UNKNOWN_COMMAND: .*no-such-program/);
  close();
});

test("avsc: the whole protocol", async () => {
  const { call, close } = await connect(full);
  const batch = await call("executeBatch", job([command("echo one"), command("echo two"), command("sh -c 'exit 3'"), command("echo never")]));
  assert.deepEqual([batch.exitCode, batch.stdout], [3, "one\ntwo\n"]);
  const all = await call("executeBatch", job([command("false"), command("echo on")], { stopOnError: false }));
  assert.deepEqual([all.exitCode, all.stdout], [1, "on\n"]);
  const detailed = await call("executeBatchDetailed", job([command("echo a"), command("false"), command("echo b")], { jobId: "mine" }));
  assert.deepEqual([detailed.jobId, detailed.succeeded, detailed.failed, detailed.skipped], ["mine", 1, 1, 1]);
  assert.equal(await call("cancel", "mine"), false);
  const run = await call("run", ask("sh -c 'cat; printf \"$X\\377\"'", { stdin: Buffer.from("in"), env: { X: "y" } }));
  assert.deepEqual(run.stdout, Buffer.from([105, 110, 121, 255]));
  assert.deepEqual([run.success, run.reason, run.stdoutBytes], [true, "exited", 4]);
  const slow = await call("run", ask("sleep 60", { timeout: 50 }));
  assert.deepEqual([slow.exitCode, slow.reason, slow.signal], [124, "timedOut", "SIGTERM"]);
  const info = await call("describe");
  assert.equal(info.service, "splengine");
  assert.ok(info.capabilities.includes("batches") && info.interfaces.rest);
  close();
});

test("avsc: errors are typed where they are declared", async () => {
  const { call, close } = await connect(full);
  const refused = await call("run", ask("true", { timeout: -1 })).catch((error) => error);
  assert.equal(refused.code, "INVALID_REQUEST");
  assert.match(refused.message, /`timeout`/);
  const missing = await call("getSession", "spl-alice-nothing").catch((error) => error);
  assert.equal(missing.code, "SESSION_NOT_FOUND");
  const none = await call("getBatch", "nothing").catch((error) => error);
  assert.equal(none.code, "NOT_FOUND");
  close();
});

test("avsc: credentials that are wrong or missing are told apart from nothing else", async () => {
  for (const bearer of ["a-wrong-token-of-some-length", null]) {
    const { call, close } = await connect(full, { bearer });
    await assert.rejects(call("execute", command("true")), /UNAUTHENTICATED/);
    const error = await call("run", ask("true")).catch((error) => error);
    assert.equal(error.code, "UNAUTHENTICATED");
    close();
  }
});

test("avsc: an overdue command ends as timed out, an overdue wait as an error", async () => {
  const until = async (deadline) => {
    const { call, close } = await connect(full, { meta: { "spl-deadline-ms": deadline } });
    try {
      const result = await call("execute", command("sleep 60"));
      assert.equal(result.exitCode, 124);
      assert.equal((await call("run", ask("sleep 60"))).reason, "timedOut");
    } finally {
      close();
    }
  };
  await until("100").catch((error) => {
    // On a busy machine that may be over before a command has begun.
    if (!/DEADLINE_EXCEEDED/.test(`${error.code} ${error.message}`)) throw error;
    return until("5000");
  });
});

test("avsc: a batch that is cancelled, or overdue, is no success", async () => {
  const [{ call, close }, other, hasty] = [
    await connect(full), await connect(full), await connect(full, { meta: { "spl-deadline-ms": "300" } }),
  ];
  const steps = [command("echo one"), command("sleep 60"), command("echo never")];
  const batch = job(steps, { jobId: "cancelled" });
  const whole = call("executeBatch", batch);
  await untilStarted(other.call, 2);
  // Another one who waits for the same job has less time, and ends nobody's but their own wait.
  for (const name of ["executeBatch", "executeBatchDetailed"]) {
    await assert.rejects(hasty.call(name, batch), /DEADLINE_EXCEEDED/);
  }
  assert.equal(await other.call("cancel", "cancelled"), true);
  const result = await whole;
  assert.deepEqual([result.exitCode, result.stdout], [130, "one\n"]);
  // Whose deadline is the batch's own; how far a busy machine got by then is open.
  const overdue = await hasty.call("executeBatch", job(steps));
  assert.equal(overdue.exitCode, 124);
  assert.ok("one\n".startsWith(overdue.stdout), overdue.stdout);
  const limited = await call("executeBatch", job(steps, { timeoutMs: 300 }));
  assert.equal(limited.exitCode, 124);
  for (const each of [{ close }, other, hasty]) each.close();
});

// Waits until the caller's one running batch has started this many steps: calls on other
// connections may overtake the one that submits it.
async function untilStarted(call, count) {
  let running = [];
  for (let tries = 0; running.length === 0 && tries < 600; tries += 1) {
    if (tries > 0) await setTimeout(50);
    running = (await call("listBatches", "running", 2, null, null, {})).batches;
  }
  assert.equal(running.length, 1, "one batch should be running");
  const until = Date.now() + 30_000;
  for (let after = 0, started = 0; started < count; ) {
    const page = await call("batchEvents", running[0].batchId, after, 5000);
    started += page.events.filter(({ event }) => event === "started").length;
    assert.ok(!page.over && (page.next > after || Date.now() < until), `only ${started} steps started`);
    after = page.next;
  }
}

test("avsc: a slow call holds up no fast one, and hundreds are answered each to its own", async () => {
  const { call, close } = await connect(full);
  const slow = call("execute", command("sh -c 'until [ -e released ]; do sleep 0.1; done; echo slow'"));
  const many = Array.from({ length: 300 }, (_, number) => call("execute", command("echo", [String(number)])));
  for (const [number, result] of (await Promise.all(many)).entries()) {
    assert.equal(result.stdout, `${number}\n`);
  }
  writeFileSync(join(root, "released"), "");
  assert.equal((await slow).stdout, "slow\n");
  close();
});

test("avsc: batches with dependencies, their events and output", async () => {
  const { call, close } = await connect(full);
  const step = (id, text, more = {}) => ({
    ...ask(text), id, dependsOn: null, runIf: "success", retries: 0, retryDelay: 0,
    rerunOnRestart: false, ...more,
  });
  const request = {
    steps: [step("a", "echo first"), step("b", "sh -c 'exit 2'"), step("c", "echo cleaned", { dependsOn: ["b"], runIf: "always" })],
    name: "nightly", parallelism: 2, failFast: "never", workdir: null, sessionId: null, idempotencyKey: "once",
  };
  const record = await call("submitBatch", request);
  assert.equal((await call("submitBatch", request)).batch.batchId, record.batch.batchId);
  const id = record.batch.batchId;
  const names = [];
  for (let after = 0, over = false; !over; ) {
    const page = await call("batchEvents", id, after, 5000);
    names.push(...page.events.map((event) => event.event));
    ({ next: after, over } = page);
  }
  assert.equal(names[0], "queued");
  assert.equal(names.at(-1), "finished");
  const ended = await call("getBatch", id);
  assert.deepEqual([ended.batch.state, ended.batch.exitCode, ended.batch.counts.succeeded], ["failed", 2, 2]);
  const part = await call("stepOutput", id, "c", "stdout", 0, 0, null);
  assert.equal(part.data.toString(), "cleaned\n");
  const page = await call("listBatches", "failed", 10, null, null, {});
  assert.ok(page.batches.some((batch) => batch.batchId === id));
  const again = await call("rerunBatch", id, true);
  assert.equal(again.batch.rerunOf, id);
  const long = await call("submitBatch", { ...request, idempotencyKey: null, steps: [step("s", "sleep 60")] });
  assert.equal((await call("cancelBatch", long.batch.batchId)).batch.state, "cancelled");
  close();
});

test("avsc: what runs and batches may ask for beside", async () => {
  const { call, close } = await connect(full);
  const silent = await call("run", ask("sleep 60", { idleTimeout: 200 }));
  assert.deepEqual([silent.reason, silent.exitCode], ["timedOut", 124]);
  const masked = await call("run", ask("sh -c 'echo $KEY'", { env: { KEY: "a secret" }, mask: ["KEY"] }));
  assert.equal(masked.stdout.toString(), "***\n");
  assert.ok(masked.cpuTime >= 0);
  await assert.rejects(call("run", ask("echo $HOME", { shell: true })), /PERMISSION_DENIED|INVALID_REQUEST/);
  await assert.rejects(call("run", ask("true", { limits: { addressSpace: -1 } })), /addressSpace/);

  // Every member, as far as it can be had at once.
  const retryOn = { exitCodes: [75], reasons: ["timedOut"] };
  const { batch } = await call("submitBatch", {
    steps: [
      { command: "sh -c 'echo x >>tries; echo $(wc -l <tries); exit 75'", id: "flaky", args: [], retries: 1, retryOn, allowFailure: true, env: { K: "V" }, check: "early" },
      { command: "./none", id: "late", check: "late", allowFailure: true, workdir: "." },
      { command: "cat", id: "open", openStdin: true, dependsOn: [] },
      { command: "tr a-z A-Z", id: "reads", stdinFrom: { step: "open", stream: "stdout" } },
      { command: "seq 1000 2000", id: "long", outputLimit: 1000 },
      { command: "sh -c 'echo $K; sleep 60'", id: "idle", env: { K: "hidden" }, mask: ["K"], idleTimeout: 300, allowFailure: true },
      { command: "sh -c 'exit 75'", id: "other", retries: 1, retryOn: { exitCodes: [9] }, allowFailure: true },
    ],
    labels: { kind: "members" }, timeout: 60000,
  });
  const id = batch.batchId;
  assert.deepEqual([batch.labels, batch.timeout], [{ kind: "members" }, 60000]);
  await assert.rejects(call("purgeBatch", id), /CONFLICT/);
  // It may not run yet.
  for (let written = false; !written; ) {
    const error = await call("writeStepInput", id, "open", Buffer.from("from outside\n"), true).then(() => null, (error) => error);
    written = error === null;
    if (!written) assert.match(String(error), /CONFLICT/);
    await setTimeout(20);
  }
  for (let after = 0, over = false; !over; ) ({ next: after, over } = await call("batchEvents", id, after, 5000));
  const { batch: ended, steps } = await call("getBatch", id);
  const [flaky, late, , , long, idle, other] = steps;
  assert.deepEqual([ended.state, ended.duration > 0], ["succeeded", true]);
  assert.deepEqual([flaky.attempt, flaky.allowFailure, flaky.env, flaky.args], [2, true, ["K"], []]);
  assert.equal(other.attempt, 1, "what is not named is not run again");
  assert.match(late.problem, /none/);
  assert.deepEqual([late.workdir, long.allowFailure], [".", false]);
  assert.deepEqual({ ...long.stdoutGap }, { at: 500, bytes: 4005 });
  assert.ok(long.cpuTime >= 0);
  assert.equal(idle.reason, "timedOut");
  const output = async (step, attempt = null) => (await call("stepOutput", id, step, "stdout", 0, 0, attempt)).data.toString();
  assert.deepEqual([await output("reads"), await output("idle")], ["FROM OUTSIDE\n", "***\n"]);
  assert.deepEqual([await output("flaky", 1), await output("flaky")], ["1\n", "2\n"]);
  const found = async (...filter) => (await call("listBatches", null, 10, null, ...filter)).batches.map((each) => each.batchId);
  assert.deepEqual(await found(null, { kind: "members" }), [id]);
  assert.deepEqual(await found(null, { kind: "other" }), []);
  assert.deepEqual(await found("other", {}), []);
  assert.equal(await call("purgeBatch", id), null);
  await assert.rejects(call("getBatch", id), /NOT_FOUND/);

  const step = { command: "true", retries: 1, retryOn: { reasons: ["unknown"] } };
  await assert.rejects(call("submitBatch", { steps: [step] }), /retryOn/);
  close();
});

test("avsc: where a whole text leaves something out, a line says so", async () => {
  const { call, close } = await connect(full);
  const more = 70 << 20;
  const result = await call("execute", command(`sh -c 'yes | head -c ${more}'`));
  const marks = result.stdout.match(/^--- \d+ bytes left out ---$/gm);
  assert.equal(marks.length, 1);
  const [before, after] = result.stdout.split(`${marks[0]}\n`);
  assert.equal(before.length + after.length + Number(marks[0].split(" ")[1]), more);
  assert.ok(before.endsWith("y\n") && after.startsWith("y\n"));
  close();
});

test("avsc: a batch's results as a container file", async () => {
  const url = `http://${server.http}/api/v1/batches`;
  const headers = { authorization: `Bearer ${token}`, accept: "application/avro" };
  const steps = [
    { id: "a", command: "printf", args: ["one \\377"] },
    { id: "b", command: "sh -c 'echo 0123456789; echo no >&2; exit 3'", outputLimit: 4 },
    { id: "c", command: "echo never" },
  ];
  const waited = await fetch(`${url}?wait=true`, {
    method: "POST", headers: { ...headers, "content-type": "application/json" }, body: JSON.stringify({ steps }),
  });
  const [, name] = /^attachment; filename="(batch-.*)\.avro"$/.exec(waited.headers.get("content-disposition"));
  const again = await fetch(`${url}/${name}/results`, { headers });
  for (const response of [waited, again]) {
    assert.deepEqual([response.status, response.headers.get("content-type")], [200, "application/avro"]);
    const file = join(root, `${name}.avro`);
    writeFileSync(file, Buffer.from(await response.arrayBuffer()));
    const decoder = avsc.createFileDecoder(file);
    const rows = [];
    decoder.on("metadata", (type) => assert.equal(type.name, "com.splectrum.rpc.StepResult"));
    decoder.on("data", (row) => rows.push(row));
    await once(decoder, "end");
    assert.deepEqual(
      rows.map((row) => [row.batchId, row.id, row.state, row.reason, row.exitCode]),
      [[name, "a", "succeeded", "exited", 0], [name, "b", "failed", "exited", 3], [name, "c", "skipped", null, null]],
    );
    assert.deepEqual(rows[0].stdout, Buffer.from("one \xff", "latin1"));
    assert.deepEqual([rows[1].stdout.toString(), rows[1].stdoutBytes, rows[1].stdoutGap], ["019\n", 11, 2]);
    assert.deepEqual([rows[1].stderr.toString(), rows[1].stderrTruncated], ["no\n", false]);
  }
});

test("avsc: sessions by polling", async () => {
  const { call, client, close } = await connect(full);
  const none = { command: null, args: [], workdir: null, env: {}, cols: 100, rows: 30, name: "mine" };
  const session = await call("openSession", none);
  assert.deepEqual([session.cols, session.rows, session.state], [100, 30, "running"]);
  const id = session.sessionId;
  client.keepAlive(id);
  let part = await call("readSession", id, null, 0, 65536, 0);
  assert.equal(part.screen, true);
  await call("writeSession", id, Buffer.from("echo se''en\n"));
  for (let seen = ""; !seen.includes("seen"); seen += part.data.toString()) {
    part = await call("readSession", id, part.epoch, part.next, 65536, 5000);
    assert.equal(part.screen, false);
  }
  const resized = await call("resizeSession", id, 90, 20);
  assert.deepEqual([resized.cols, resized.rows], [90, 20]);
  const saved = await call("saveSession", id, "kept");
  assert.ok((await call("listSavedSessions")).some((each) => each.savedId === saved.savedId));
  const loaded = await call("loadSession", saved.savedId, null, null);
  assert.equal((await call("listSessions")).length, 2);
  await call("removeSavedSession", saved.savedId);
  for (const each of [id, loaded.sessionId]) await call("endSession", each);
  assert.equal((await call("listSessions")).length, 0);
  close();
});

test("avsc: older and newer texts are resolved", async () => {
  const older = structuredClone(seed);
  older.protocol = "Older";
  older.types[0].fields.length = 2;
  older.types[1].fields = older.types[1].fields.filter((field) => field.name !== "duration").reverse();
  const newer = structuredClone(seed);
  newer.types[0].fields.unshift({ name: "priority", type: "int", default: 0 });
  newer.types[1].fields.push({ name: "node", type: "string", default: "?" });
  for (const [text, given] of [[older, { command: "echo", args: ["old"] }], [newer, { priority: 7, ...command("echo", ["new"]) }]]) {
    const { call, close } = await connect(text);
    const result = await call("execute", given);
    assert.equal(result.stdout, `${given.args[0]}\n`);
    close();
  }
  const foreign = structuredClone(seed);
  foreign.messages.destroy = { request: [], response: "null" };
  const { call, close } = await connect(foreign);
  await assert.rejects(call("execute", command("true")), /incompatible|destroy/i);
  close();
});

test("avsc: files, whole and in parts", async () => {
  const { call, close } = await connect(full);
  const first = Buffer.from("whole, ");
  await call("writeFile", "/notes.txt", first, null);
  const status = await call("writeFile", "notes.txt", Buffer.from("and more"), first.length);
  assert.deepEqual([status.kind, status.size], ["file", 15]);
  assert.equal(readFileSync(join(root, "notes.txt"), "utf8"), "whole, and more");
  const chunk = await call("readFile", "notes.txt", 7, 3);
  assert.deepEqual([chunk.data.toString(), chunk.size, chunk.atEnd], ["and", 15, false]);
  assert.equal((await call("statFile", "/")).kind, "directory");
  for (const [path, code] of [["none", "NOT_FOUND"], ["runtime/sessions", "NOT_FOUND"], ["../x", "INVALID_REQUEST"]]) {
    await assert.rejects(call("statFile", path), (error) => JSON.stringify(error).includes(code));
  }
  close();
});

test("avsc over HTTP, on both servers", async () => {
  for (const url of [`http://${server.avro}/`, `http://${server.avro}/avro`, `http://${server.http}/avro`]) {
    const service = avsc.Service.forProtocol(seed);
    const client = service.createClient();
    client.createChannel((done) =>
      http.request(url, { method: "POST", headers: { "content-type": "avro/binary", authorization: `Bearer ${token}` } })
        .on("response", (response) => done(null, response))
        .on("error", done));
    const result = await new Promise((resolve, reject) =>
      client.execute(command("echo web"), (error, value) => (error ? reject(error) : resolve(value))));
    assert.equal(result.stdout, "web\n");
  }
});

test("avro-js over a socket: its handshake stands alone, its calls are found by their ids", async () => {
  anonymous = await start(newRoot(), "--anonymous", "guest");
  const protocol = avroJs.parse(seed);
  const socket = net.connect(anonymous.port, anonymous.host);
  await once(socket, "connect");
  const emitter = protocol.createEmitter(socket);
  const call = (given) =>
    new Promise((resolve, reject) =>
      protocol.emit("execute", { command: given }, emitter, (error, value) => (error ? reject(error) : resolve(value))));
  const results = await Promise.all(["a", "b", "c"].map((text) => call(command("echo", [text]))));
  assert.deepEqual(results.map((result) => result.stdout), ["a\n", "b\n", "c\n"]);
  await assert.rejects(call(command("no-such-program")), (error) => /UNKNOWN_COMMAND/.test(String(error.message ?? error) + JSON.stringify(error)));
  socket.destroy();
  await stop(anonymous);
});

test("what is no protocol is closed, and others are served on", async () => {
  for (const garbage of ["SSH-2.0-OpenSSH_9.2\r\n", "\0".repeat(64), "\x7f\xff\xff\xff".repeat(8)]) {
    const socket = net.connect(server.port, server.host);
    socket.on("error", () => {});
    socket.end(Buffer.from(garbage, "latin1"));
    socket.resume();
    // Reset is closed too, and would be an error for `once`.
    await new Promise((closed) => socket.on("close", closed));
  }
  const { call, close } = await connect(seed);
  assert.equal((await call("execute", command("true"))).exitCode, 0);
  close();
});
