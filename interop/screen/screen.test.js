// The screen that splengine keeps, against xterm.js: what was written into a terminal directly, and
// what another one shows that got a snapshot somewhere on the way and only the rest directly, must
// be the same in everything that can be seen, now and after further bytes.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { after, test } from "node:test";

import unicode11 from "@xterm/addon-unicode11";
import headless from "@xterm/headless";

import { cases } from "./cases.js";
import { fuzz, random } from "./fuzz.js";

const { Terminal } = headless;
const { Unicode11Addon } = unicode11;

const ours = spawn(process.env.SPLENGINE_SCREEN, { stdio: ["pipe", "pipe", "inherit"] });
const lines = createInterface({ input: ours.stdout })[Symbol.asyncIterator]();
after(() => ours.kill());

async function screen(request) {
  if (!ours.stdin.write(`${JSON.stringify(request)}\n`)) await once(ours.stdin, "drain");
  return JSON.parse((await lines.next()).value);
}

function terminal(cols, rows) {
  const term = new Terminal({ cols, rows, scrollback: 300, allowProposedApi: true });
  term.loadAddon(new Unicode11Addon());
  term.unicode.activeVersion = "11";
  term.seen = { title: "", replies: "" };
  term.onTitleChange((title) => (term.seen.title = title));
  term.onData((data) => (term.seen.replies += data));
  return term;
}

const write = (term, data) => new Promise((done) => term.write(data, done));

async function play(term, steps) {
  for (const step of steps) {
    if (Array.isArray(step)) term.resize(...step);
    else await write(term, step);
  }
}

const looks = [
  "getWidth", "getChars", "getFgColorMode", "getBgColorMode", "getFgColor", "getBgColor", "isBold",
  "isItalic", "isDim", "isUnderline", "isBlink", "isInverse", "isInvisible", "isStrikethrough",
  "isOverline",
];

function rowsOf(buffer) {
  const rows = [];
  for (let y = 0; y < buffer.length; y += 1) {
    const line = buffer.getLine(y);
    const cells = [];
    for (let x = 0; x < line.length; x += 1) {
      const cell = line.getCell(x);
      cells.push(looks.map((look) => cell[look]()).join(","));
    }
    const blank = "1,,0,0,-1,-1,0,0,0,0,0,0,0,0,0";
    while (cells.length && cells.at(-1) === blank) cells.pop();
    rows.push({ wrapped: y > 0 && line.isWrapped, cells: cells.join("|") });
  }
  return rows;
}

function state(term) {
  const buffer = term.buffer;
  const of = (one) => ({ x: one.cursorX, y: one.cursorY, base: one.baseY, rows: rowsOf(one) });
  return {
    type: buffer.active.type,
    normal: of(buffer.normal),
    alternate: buffer.active.type === "alternate" ? of(buffer.alternate) : null,
    modes: { ...term.modes },
    title: term.seen.title,
  };
}

const encoder = new TextEncoder();
const bytesOf = (step) => (typeof step === "string" ? encoder.encode(step) : step);

// What would show a difference that cells do not: pending wraps, margins, tab stops, charsets,
// saved cursors, the look of what comes.
const probes = ["", "ZY", "\ta\tb", "\x1b8Q", "\x0eqx\x0fq", "\n\n\n\nR", "\x1b[HS\x1bMT", "\x1b[?1049lU", "\u0301"];

function cut(steps, at) {
  let left = at;
  for (const [index, step] of steps.entries()) {
    if (Array.isArray(step)) continue;
    if (left < step.length) {
      return [
        [...steps.slice(0, index), step.slice(0, left)],
        [step.slice(left), ...steps.slice(index + 1)],
      ];
    }
    left -= step.length;
  }
  return [steps, []];
}

function sizeAfter({ cols, rows }, steps) {
  return steps.filter(Array.isArray).at(-1) ?? [cols, rows];
}

const hex = (bytes) => Buffer.from(bytes).toString("hex");

async function compare(one, at, probe, scrollback = 300) {
  const steps = one.steps.map((step) => (Array.isArray(step) ? step : bytesOf(step)));
  const [before, rest] = cut(steps, at);
  const direct = terminal(one.cols, one.rows);
  await play(direct, steps);
  await write(direct, probe);
  const answer = await screen({
    cols: one.cols,
    rows: one.rows,
    scrollback,
    steps: before.map((step) => (Array.isArray(step) ? step : hex(step))),
  });
  const copy = terminal(...sizeAfter(one, before));
  await write(copy, Buffer.from(answer.snapshot, "hex"));
  const asked = copy.seen.replies;
  await play(copy, rest);
  await write(copy, probe);
  const result = { direct: state(direct), copy: state(copy), asked };
  direct.dispose();
  copy.dispose();
  return result;
}

function difference({ direct, copy, asked }) {
  try {
    assert.equal(asked, "", "a snapshot asks for nothing");
    assert.deepEqual(copy, direct);
    return null;
  } catch (error) {
    return error;
  }
}

function length(steps) {
  return steps.filter((step) => !Array.isArray(step)).reduce((sum, step) => sum + bytesOf(step).length, 0);
}

for (const one of cases) {
  test(one.name, async () => {
    const total = length(one.steps);
    const next = random(7);
    const splits = total <= 60
      ? [...Array(total + 1).keys()]
      : [0, total, ...Array.from({ length: 40 }, () => next(total))];
    for (const at of splits) {
      const problem = difference(await compare(one, at, ""));
      if (problem) throw new Error(`split at ${at}: ${problem.message}`);
    }
    for (const probe of probes) {
      const problem = difference(await compare(one, total, probe));
      if (problem) throw new Error(`then ${JSON.stringify(probe)}: ${problem.message}`);
    }
  });
}

test("200 nasty streams", { timeout: 200_000 }, async () => {
  const failed = [];
  for (let seed = 1; seed <= 200; seed += 1) {
    const one = fuzz(seed);
    const next = random(seed * 31);
    const at = next(length(one.steps) + 1);
    const problem = difference(await compare(one, at, probes[next(probes.length)]));
    if (problem) failed.push([seed, problem.message]);
  }
  console.log(`${200 - failed.length} of 200 are exact`);
  if (process.env.SHOW) for (const [seed, why] of failed) console.log(seed, why.slice(0, 1500));
  assert.ok(failed.length <= 10, `seeds ${failed.map(([seed]) => seed).join(" ")}`);
});
