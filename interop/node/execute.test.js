// Node's own fetch (undici) against the all-in-one server.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { cp, mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { EventSource } from "eventsource";
import { EventSourceParserStream } from "eventsource-parser/stream";

const timeout = 60_000;
const spl = new URL("../../examples/spl/", import.meta.url).pathname;
const token = `alice-${randomBytes(16).toString("hex")}`;
const started = [];
let url, home;

// Starts a server; its address.
async function serve(root, ...flags) {
  const off = ["ws", "ssh", "avro"].flatMap((name) => [`--${name}`, "off"]);
  const server = spawn(
    process.env.SPLENGINE_SERVER,
    ["--root", root, "--http", "127.0.0.1:0", ...off, "--token", `alice=${token}`, ...flags],
    { stdio: ["ignore", "pipe", "ignore"], env: { PATH: process.env.PATH } },
  );
  started.push(server);
  for await (const line of createInterface({ input: server.stdout })) {
    return `http://${JSON.parse(line).http}`;
  }
  throw new Error("the server gave no ready line");
}

before(async () => {
  home = await mkdtemp(join(tmpdir(), "splengine-"));
  url = await serve(home);
}, { timeout });

after(async () => {
  for (const server of started) {
    const ended = new Promise((resolve) => server.once("exit", resolve));
    server.kill("SIGTERM");
    assert.equal(await ended, 0);
  }
  await rm(home, { recursive: true });
}, { timeout });

const post = (body, { at = url, query = "", headers = {}, ...rest } = {}) =>
  fetch(`${at}/execute${query}`, {
    method: "POST",
    headers: {
      Authorization: `Bearer ${token}`,
      "Content-Type": "application/json",
      ...headers,
    },
    body: typeof body === "object" && body.command ? JSON.stringify(body) : body,
    ...rest,
  });

const sh = (script) => ({ command: "sh", args: ["-c", script] });

async function* lines(stream) {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const parts = (rest + text).split("\n");
    rest = parts.pop();
    for (const part of parts) if (part.trim()) yield JSON.parse(part);
  }
  assert.equal(rest, "", "the last line is whole");
}

function assertWhole(events) {
  assert.equal(events[0].type, "started");
  assert.equal(events.at(-1).type, "exit");
  assert.deepEqual(
    events.map((event) => event.seq - events[0].seq),
    events.map((_, index) => index),
  );
}

const printed = (events, stream) =>
  events.filter((event) => event.type === stream).map((event) => event.data).join("");

// A zombie has a number too, but the server leaves none.
async function ended(pid) {
  for (;;) {
    try {
      process.kill(pid, 0);
    } catch (error) {
      if (error.code === "ESRCH") return;
      throw error;
    }
    await sleep(20);
  }
}

test("buffered", { timeout }, async () => {
  const response = await post(sh("echo out; echo error >&2; exit 3"));
  assert.equal(response.status, 200);
  assert.match(response.headers.get("content-type"), /^application\/json/);
  const { duration, sessionId, cpuTime, peakMemory, processes, ...rest } = await response.json();
  assert.equal(typeof duration, "number");
  // Null where the kernel does not tell.
  for (const used of [cpuTime, peakMemory, processes]) assert.ok(used === null || Number.isSafeInteger(used), `${used}`);
  assert.match(sessionId, /^spl-alice-/);
  assert.deepEqual(rest, {
    success: false, exitCode: 3, stdout: "out\n", stderr: "error\n", reason: "exited", signal: null,
    stdoutBytes: 4, stderrBytes: 6, stdoutTruncated: false, stderrTruncated: false,
    stdoutGap: null, stderrGap: null,
  });
});

test("NDJSON", { timeout }, async () => {
  const response = await post(sh("seq 1 100000; echo ütf >&2; exit 7"), {
    headers: { Accept: "application/x-ndjson" },
  });
  assert.equal(response.status, 200);
  const events = [];
  for await (const event of lines(response.body)) events.push(event);
  assertWhole(events);
  const want = Array.from({ length: 100_000 }, (_, index) => `${index + 1}\n`).join("");
  assert.equal(printed(events, "stdout"), want);
  assert.equal(printed(events, "stderr"), "ütf\n");
  assert.equal(events.at(-1).exitCode, 7);
});

test("server-sent events over POST", { timeout }, async () => {
  const response = await post(sh("for n in 1 2 3; do echo $n; sleep 0.05; done; exit 4"), {
    headers: { Accept: "text/event-stream" },
  });
  assert.match(response.headers.get("content-type"), /^text\/event-stream/);
  const stream = response.body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
  const events = [];
  for await (const message of stream) {
    const event = JSON.parse(message.data);
    assert.equal(message.event, event.type);
    events.push(event);
  }
  assertWhole(events);
  assert.equal(printed(events, "stdout"), "1\n2\n3\n");
  assert.equal(events.at(-1).exitCode, 4);
});

test("standard input streams in while output streams out", { timeout }, async () => {
  const block = randomBytes(64 * 1024);
  const count = 256;
  let sent = 0;
  const body = new ReadableStream({
    type: "bytes",
    pull(controller) {
      if (sent++ < count) controller.enqueue(new Uint8Array(block));
      else controller.close();
    },
  });
  const response = await post(body, {
    query: "?command=cat&outputEncoding=base64",
    headers: { "Content-Type": "application/octet-stream", Accept: "application/x-ndjson" },
    duplex: "half",
  });
  assert.equal(response.status, 200);
  const got = createHash("sha256");
  const events = [];
  for await (const event of lines(response.body)) {
    if (event.type === "stdout") got.update(Buffer.from(event.data, "base64"));
    events.push({ ...event, data: undefined });
  }
  assertWhole(events);
  const want = createHash("sha256");
  for (let n = 0; n < count; n++) want.update(block);
  assert.equal(got.digest("hex"), want.digest("hex"));
  assert.equal(events.at(-1).stdoutBytes, count * block.length);
});

for (const accept of ["application/x-ndjson", "text/event-stream"]) {
  test(`an abort kills the process (${accept})`, { timeout }, async () => {
    const abort = new AbortController();
    const response = await post(sh("setsid sleep 300 & echo $! $$; wait"), {
      headers: { Accept: accept },
      signal: abort.signal,
    });
    let text = "";
    const decoder = new TextDecoder();
    const reader = response.body.getReader();
    while (!/"data":"\d+ \d+\\n"/.test(text)) {
      const { value, done } = await reader.read();
      assert.equal(done, false, text);
      text += decoder.decode(value, { stream: true });
    }
    const [, child, leader] = text.match(/"data":"(\d+) (\d+)\\n"/).map(Number);
    abort.abort();
    await assert.rejects(reader.read(), { name: "AbortError" });
    await ended(leader);
    await ended(child);
  });
}

test("an abort of a buffered run kills the process", { timeout }, async () => {
  const abort = new AbortController();
  const answer = post(sh("echo $$ > pid.new; mv pid.new pid; exec sleep 300"), { signal: abort.signal });
  answer.catch(() => {});
  let pid = "";
  while (!pid) {
    pid = (await (await post({ command: "sh -c 'cat pid 2>/dev/null'" })).json()).stdout.trim();
  }
  process.kill(Number(pid), 0);
  abort.abort();
  await assert.rejects(answer, { name: "AbortError" });
  await ended(Number(pid));
});

// NiFi's and Kafka's clients know one program, `spl`, which ends with 0 when it has failed.
test("the very bodies of NiFi and Kafka clients", { timeout }, async () => {
  // No two servers share a root.
  const root = await mkdtemp(join(home, "spl-"));
  const at = await serve(root, "--program", `${spl}spl`, "--config", `${spl}spl.toml`);
  await cp(`${spl}data`, root, { recursive: true });
  await mkdir(join(root, "spl/runtime/kafka-session"), { recursive: true });
  await cp(`${spl}data/fruit.csv`, join(root, "spl/runtime/kafka-session/fruit.csv"));
  const ask = async (body) => {
    const response = await post(body, { at, query: "?failStatus=500" });
    return [response.status, await response.json()];
  };

  const [status, transformed] = await ask({ command: "data transform", args: ["--input=fruit.csv"] });
  assert.equal(status, 200);
  assert.match(transformed.stdout, /\n[A-Z,]+\n/);

  const [, logged] = await ask({ command: 'console log "Hello from NiFi"' });
  assert.match(logged.stdout, /\nHello from NiFi\n/);

  // An absolute workdir is taken below root.
  const [, processed] = await ask({
    command: "data process",
    args: ["--input=fruit.csv", "--output=processed"],
    workdir: "/spl/runtime/kafka-session",
  });
  assert.equal(processed.exitCode, 0);
  assert.notEqual(await readFile(join(root, "spl/runtime/kafka-session/processed"), "utf8"), "");

  const [failStatus, failed] = await ask({ command: "data transform", args: ["--input=${filename}"] });
  assert.equal(failStatus, 500);
  assert.equal(failed.exitCode, 1);
  assert.equal(failed.success, false);
  assert.equal(typeof failed.error, "string");

  const [refused] = await ask({ command: "console log", args: ["x@@spl/data/transform"] });
  assert.equal(refused, 422);
});

// NiFi's InvokeHTTP sends what its attributes hold, and routes on the status: 2xx to `Response`,
// 5xx to `Retry`, the rest to `No Retry`.
test("NiFi's routing by failStatus", { timeout }, async () => {
  const body = { command: 'printf "%s|" "Hello from NiFi"', args: ["--input=a b.csv"] };
  const fine = await post(body, { query: "?failStatus=500" });
  assert.equal(fine.status, 200);
  assert.equal((await fine.json()).stdout, "Hello from NiFi|--input=a b.csv|");

  const failed = await post(sh("echo half; exit 3"), { query: "?failStatus=500" });
  assert.equal(failed.status, 500);
  const answer = await failed.json();
  assert.equal(answer.exitCode, 3);
  assert.equal(answer.stdout, "half\n");
  assert.equal(typeof answer.error, "string");

  const malformed = await post('{"command": "true"', { query: "?failStatus=500" });
  assert.equal(malformed.status, 400);
  assert.match(malformed.headers.get("content-type"), /^application\/problem\+json/);
  assert.equal(typeof (await malformed.json()).error, "string");
});

// An EventSource on the events of a batch, until it is closed for good. `cut` gets each piece of the first
// answer, and says behind which its connection is lost.
async function followed(batch, cut = () => false) {
  const statuses = [];
  const source = new EventSource(`${url}/api/v1/batches/${batch}/events`, {
    fetch: async (target, init) => {
      const headers = { ...init.headers, Authorization: `Bearer ${token}` };
      const response = await fetch(target, { ...init, headers });
      statuses.push(response.status);
      const { status, redirected, headers: got } = response;
      if (statuses.length > 1) return response;
      const body = response.body?.pipeThrough(new TransformStream({
        transform(piece, controller) {
          controller.enqueue(piece);
          if (cut(new TextDecoder().decode(piece))) controller.terminate();
        },
      }));
      return { body: body ?? null, url: response.url, status, redirected, headers: got };
    },
  });
  const seen = [];
  let opened = 0;
  source.onopen = () => opened++;
  for (const name of ["queued", "begun", "started", "ended", "finished"]) {
    source.addEventListener(name, (event) => seen.push({ ...JSON.parse(event.data), id: event.lastEventId }));
  }
  const code = await new Promise((resolve) => {
    source.onerror = (error) => {
      // Without an end it comes back for ever.
      if (source.readyState !== EventSource.CLOSED && statuses.length < 4) return;
      source.close();
      resolve(error.code);
    };
  });
  assert.deepEqual(seen.map((event) => event.id), seen.map((_, index) => `${index + 1}`));
  return { statuses, opened, code, names: seen.map((event) => event.event) };
}

const submit = async (...steps) => {
  const response = await fetch(`${url}/api/v1/batches`, {
    method: "POST",
    headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
    body: JSON.stringify({ steps }),
  });
  assert.equal(response.status, 202);
  return (await response.json()).batchId;
};

const WHOLE = ["queued", "begun", "started", "ended", "finished"];

test("an EventSource stops at the end of a batch", { timeout }, async () => {
  const batch = await submit({ command: "true" });
  // While it runs, and when it is over: what follows the last event is told to be nothing.
  for (const _ of [1, 2]) {
    assert.deepEqual(await followed(batch), { statuses: [200, 204], opened: 1, code: 204, names: WHOLE });
  }
});

test("an EventSource goes on where its connection was lost", { timeout }, async () => {
  const batch = await submit(sh("until [ -e ended-by-client ]; do sleep 0.05; done"));
  const lost = followed(batch, (text) => {
    if (!text.includes("event: started")) return false;
    // While nobody listens.
    post(sh("touch ended-by-client"));
    return true;
  });
  assert.deepEqual(await lost, { statuses: [200, 200, 204], opened: 2, code: 204, names: WHOLE });
});

test("without credentials it is 401 and says which", { timeout }, async () => {
  const response = await post({ command: "true" }, { headers: { Authorization: "" } });
  assert.equal(response.status, 401);
  assert.match(response.headers.get("www-authenticate"), /^Bearer/);
});
