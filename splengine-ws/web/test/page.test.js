import assert from "node:assert/strict";
import { test } from "node:test";

import { formatPlace, pageLink, parsePlace } from "../dist/address.js";
import { AnsiText } from "../dist/ansi.js";
import { detailsOf, inSeconds, outputOf, reasonInWords, serverTime, stepsOf } from "../dist/batch_words.js";
import { Composing, keysBetween, leftOf } from "../dist/composing.js";
import { joinedRanges } from "../dist/graphemes.js";
import { MAX_OSC52, parseOsc52 } from "../dist/osc52.js";
import { cleanPaste } from "../dist/paste.js";
import { clampFontSize, parseSettings } from "../dist/settings.js";
import { Lines } from "../dist/swipe.js";
import { sentence } from "../dist/words.js";

test("a paste keeps text, tabs and line ends, and nothing that a terminal takes for a command", () => {
  assert.equal(cleanPaste("a\tb\r\nc\n"), "a\tb\r\nc\n");
  assert.equal(cleanPaste("x\x01\x1b[201~\x7f\u0085\u009by\x00"), "x[201~y");
  for (let code = 0; code < 0xa0; code += 1) {
    const isKept = [9, 10, 13].includes(code) || (code >= 0x20 && code < 0x7f);
    assert.equal(cleanPaste(String.fromCharCode(code)).length, isKept ? 1 : 0, `${code}`);
  }
  assert.equal(cleanPaste("日本 👍🏽 é"), "日本 👍🏽 é");
});

test("what a font draws as one picture is one range", () => {
  const found = (text) => joinedRanges(text).map(([from, to]) => text.slice(from, to));
  assert.deepEqual(found("a👨‍👩‍👧‍👦|b"), ["👨‍👩‍👧‍👦"]);
  assert.deepEqual(found("👍🏽|z 🇩🇪x"), ["👍🏽", "🇩🇪"]);
  assert.deepEqual(found("plain 👍 ascii 123 日本"), []);
});

test("OSC 52 sets, and never reads", () => {
  const base64 = (text) => Buffer.from(text).toString("base64");
  assert.equal(parseOsc52(`c;${base64("copied ✓")}`), "copied ✓");
  assert.equal(parseOsc52(`;${base64("x")}`), "x");
  for (const wrong of ["c;?", "c;", "c", "z;eA==", "c;***", `c;${Buffer.from([0xff]).toString("base64")}`, `c;${"A".repeat(MAX_OSC52 + 4)}`]) {
    assert.equal(parseOsc52(wrong), null, wrong.slice(0, 20));
  }
});

test("an address says what is shown, and is read back", () => {
  for (const place of [
    { view: "terminal", session: "spl-a-b" },
    { view: "batches", batch: null },
    { view: "batches", batch: "b-1" },
  ]) assert.deepEqual(parsePlace(formatPlace(place)), place);
  assert.equal(parsePlace(""), null);
  assert.equal(pageLink("https://host:8443/console/?x=1#session=y", "ticket=t"), "https://host:8443/console/#ticket=t");
});

test("settings that can't be right are left out", () => {
  const fallback = { fontSize: 14, screenReader: false, renderer: "auto", programCopy: "ask" };
  assert.deepEqual(parseSettings(null, fallback), fallback);
  assert.deepEqual(parseSettings("nonsense", fallback), fallback);
  const kept = parseSettings('{"fontSize":900,"screenReader":"yes","renderer":"dom","programCopy":"block"}', fallback);
  assert.deepEqual(kept, { fontSize: 32, screenReader: false, renderer: "dom", programCopy: "block" });
  assert.equal(clampFontSize(3), 8);
});

test("pixels of a swipe become lines, and none is lost", () => {
  const lines = new Lines();
  assert.deepEqual([5, 5, 5, 5, -20].map((pixels) => lines.take(pixels, 10)), [0, 1, 0, 1, -2]);
});

const plain = (runs) => runs.map((run) => run.text).join("");

test("output is drawn as a terminal would: colours, carriage returns, erased lines", () => {
  const text = new AnsiText();
  const lines = text.push("\x1b[31mred\x1b[0m and \x1b[1;44mbold\x1b[m\nprogress 10%\rprogress 100%\rdone\x1b[K\nab\bc\tx\n");
  assert.deepEqual(lines.map((line) => plain(line.runs)), ["red and bold", "done", "ac      x"]);
  const [red, , bold] = lines[0].runs;
  assert.equal(red.style.fore, 1);
  assert.deepEqual([bold.style.bold, bold.style.back], [true, 4]);
  assert.equal(lines[1].runs.length, 1);
});

test("sequences are followed over pieces, and unknown ones are dropped", () => {
  const whole = "a\x1b[38;5;196mb\x1b[38;2;1;2;3mc\x1b]8;;http://x\x07link\x1b]8;;\x1b\\\x1b(B\x1b[?25l\x1b[2Jd\x07\n";
  const wanted = JSON.stringify(new AnsiText().push(whole));
  assert.equal(plain(JSON.parse(wanted)[0].runs), "abclinkd");
  assert.equal(JSON.parse(wanted)[0].runs[1].style.fore, "rgb(255 0 0)");
  for (let cut = 1; cut < whole.length; cut += 1) {
    const text = new AnsiText();
    assert.equal(JSON.stringify([...text.push(whole.slice(0, cut)), ...text.push(whole.slice(cut))]), wanted, `${cut}`);
  }
});

test("a line without an end is cut, and a sequence without an end is text again", () => {
  const text = new AnsiText();
  const lines = text.push("x".repeat(25_000));
  assert.deepEqual(lines.map((line) => [line.isWhole, plain(line.runs).length]), [[false, 10_000], [false, 10_000]]);
  assert.equal(plain(text.current).length, 5_000);
  const open = new AnsiText();
  assert.ok(open.push(`\x1b]0;${"y".repeat(9000)}\n`).length > 0);
});

const step = (more) => ({ id: "2", command: "make", dependsOn: ["1"], state: "running", attempt: 1, reason: null, error: null, exitCode: null, signal: null, started: null, duration: null, stdoutBytes: 0, stderrBytes: 0, stdoutTruncated: false, stderrTruncated: false, ...more });

test("a step tells all that it waits for, and its reason in words", () => {
  const steps = [step({ id: "lint" }), step({ id: "test" }), step({ id: "pack", dependsOn: ["lint", "test"] })];
  assert.equal(detailsOf(steps[2], 2, steps, 3000), "running · 3.0 s · after lint, test");
  assert.equal(detailsOf(step({ id: "test", dependsOn: ["lint"] }), 1, steps, null), "running");
  assert.equal(detailsOf(step({ dependsOn: [] }), 1, steps, null), "running · does not wait for others");
  assert.match(detailsOf(step({ state: "failed", reason: "timedOut", duration: 1500 }), 1, [step({ id: "1" })], null), /^failed · timed out · 1\.5 s$/);
  assert.equal(reasonInWords("someNewReason"), "some new reason");
  assert.match(outputOf(step({ state: "succeeded" })), /no output/);
});

test("a batch tells how many of its steps are over", () => {
  const counts = { total: 3, queued: 0, running: 1, retrying: 0, succeeded: 1, failed: 0, skipped: 0, cancelled: 1 };
  assert.equal(stepsOf({ counts }), "2 of 3 steps");
  assert.equal(stepsOf({ counts: { ...counts, total: 1, running: 0, cancelled: 0 } }), "1 of 1 step");
});

test("what a server refuses is read as a sentence", () => {
  assert.equal(sentence("step `1`: program `cd` was not found"), "Step “1”: program “cd” was not found.");
  assert.equal(sentence("`x` is taken"), "“x” is taken.");
  assert.equal(sentence("https://a.example is no address"), "https://a.example is no address.");
  assert.equal(sentence("The server can't be reached."), "The server can't be reached.");
  assert.equal(sentence(""), "");
});

test("time goes on between records, by the server's clock", () => {
  const batch = { started: "2026-01-01T00:00:00Z", created: "2026-01-01T00:00:00Z", duration: 2000 };
  assert.equal(serverTime(batch, 50_000, 53_000) - Date.parse(batch.started), 5000);
  assert.equal(inSeconds(5900), "5 s");
});

test("of a composed word, what was typed is not typed again", () => {
  assert.equal(leftOf("word", "word"), "");
  assert.equal(leftOf("words", "word"), "s");
  assert.equal(leftOf("other", "word"), "");
});

test("what a soft keyboard changes becomes keys", () => {
  assert.equal(keysBetween("", "1"), "1");
  assert.equal(keysBetween("teh", "the"), "\x7f\x7fhe");
  assert.equal(keysBetween("a👍", "a"), "\x7f");
  assert.equal(keysBetween("same", "same"), "");
});

/** A text area in which "日本" was composed, and what was typed of it; xterm.js's timer has not come. */
function composed() {
  const area = Object.assign(new EventTarget(), { value: "" });
  const typed = [];
  const composing = new Composing(area, (text) => typed.push(text));
  const composes = (text) => {
    area.dispatchEvent(new Event("compositionstart"));
    area.value += text;
    area.dispatchEvent(Object.assign(new Event("compositionend"), { data: text }));
  };
  composes("日本");
  const xtermTypes = (data) => typed.push(composing.typed(data));
  const press = (keyCode) => composing.key({ type: "keydown", keyCode });
  return { composes, xtermTypes, press, typed };
}

test("a key that comes just behind xterm.js's timer is typed, and nothing twice", () => {
  const { xtermTypes, press, typed } = composed();
  xtermTypes("日本");
  assert.equal(press(63), true);
  xtermTypes("?");
  assert.deepEqual(typed, ["日本", "?"]);
});

test("a key that comes before xterm.js's timer has what was composed typed first, and whole", () => {
  const { xtermTypes, press, typed } = composed();
  assert.equal(press(63), true);
  // Of what was composed, xterm.js knows a part.
  xtermTypes("日");
  xtermTypes("?");
  assert.deepEqual(typed, ["日本", "?"]);
});

test("a timer that comes late is not the next composition's", (t) => {
  const timers = [];
  t.mock.method(globalThis, "setTimeout", (act) => timers.push(act));
  const { composes, xtermTypes, press, typed } = composed();
  xtermTypes("日本");
  composes("語");
  timers[0]();
  press(63);
  xtermTypes("");
  xtermTypes("?");
  assert.deepEqual(typed, ["日本", "語", "?"]);
});

test("nothing that was composed hides no key", () => {
  const { composes, xtermTypes, press, typed } = composed();
  xtermTypes("日本");
  composes("");
  press(63);
  xtermTypes("?");
  assert.deepEqual(typed, ["日本", "?"]);
});
