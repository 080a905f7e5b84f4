// What is seen: pictures of the terminal, drawn by WebGL as for most users, and as elements.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { api, bench, breakable, close, connected, open, openSession, picture, problems, root, shot, shows, token, type, until } from "./support.js";

const MARK = [255, 0, 255];
const FIRST = [0, 255, 0];
const LAST = [0, 255, 255];
const BACK = { dark: [15, 19, 24], light: [252, 252, 253] };

const escape = (rgb, how = 38) => `\x1b[${how};2;${rgb.join(";")}m`;
const isNear = (one, other) => one.every((part, at) => Math.abs(part - other[at]) < 8);

const cell = (page) =>
  page.evaluate(() => {
    const { x, y, width, height } = document.querySelector(".xterm-screen").getBoundingClientRect();
    const { cols, rows } = window.splengine.size();
    return { x, y, wide: width / cols, high: height / rows };
  });

/** How it draws. */
async function drawsBy(page, webgl) {
  if (webgl) await page.locator(".xterm-screen canvas").first().waitFor({ state: "attached" });
  assert.equal(await page.locator(".xterm-rows").count(), webgl ? 0 : 1);
}

/** Whether a pixel has something of a colour that is made of some of red, green and blue alone. */
function hasOf(pixel, colour) {
  const [lit, unlit] = [255, 0].map((part) => pixel.filter((_, at) => colour[at] === part));
  return Math.min(...lit) - Math.max(...unlit) > 50;
}

/** The leftmost and the rightmost pixel of such a colour, in a part of a picture. */
function extent({ width, pixel }, colour, top, bottom) {
  let [left, right] = [Infinity, -Infinity];
  for (let y = top; y < bottom; y += 1) {
    for (let x = 0; x < width; x += 1) if (hasOf(pixel(x, y), colour)) [left, right] = [Math.min(left, x), Math.max(right, x)];
  }
  return left === Infinity ? null : { left, right };
}

/** Prints what is in a file, and nothing else, on a screen that nothing else changes. */
async function prints(page, text) {
  writeFileSync(join(root, "printed"), text);
  await type(page, "clear; printf '\\033[?25l'; cat printed; echo re''ady; sleep 600\n");
  await shows(page, "ready");
}

/** The colour in the middle of the terminal's part of the page, once it is what is wanted. */
async function isSeen(page, place, wanted, what) {
  let last;
  await until(async () => {
    last = (await picture(page, { ...place, width: 1, height: 1 })).pixel(0, 0);
    return isNear(last, wanted) || undefined;
  }, what).catch((error) => assert.fail(`${error.message}: ${last}, not ${wanted}`));
}

// What stands before the tail, and how many columns a program counts for it.
const LINES = [
  ["plain text", "plain", 5],
  ["Arabic", "مرحبا", 5],
  ["Arabic in colours", `${escape(FIRST)}م\x1b[mرحب${escape(LAST)}ا\x1b[m`, 5],
  ["Arabic in a table", "name مرحبا | 16", 15],
  ["Hebrew in colours", `${escape(FIRST)}ש\x1b[mלו${escape(LAST)}ם\x1b[m`, 4],
  ["wide letters", "日本語", 6],
  ["a joined emoji", "a👨‍👩‍👧‍👦|", 10],
  ["a tone of skin", "👍🏽|", 5],
  ["a flag", "🇩🇪|", 3],
  ["a combining accent", "cafe\u0301s", 5],
];
const COLUMN = 20;
// Numbers and signs are what letters from right to left take with them.
const TAIL = "| 16 | 7 | end";

/** How much two parts of a picture differ, of what the first differs from its background. */
function difference(seen, one, other) {
  let [ink, differs] = [0, 0];
  for (let y = 0; y < one.height; y += 1) {
    for (let x = 0; x < one.width; x += 1) {
      const [a, b, back] = [seen.pixel(one.x + x, one.y + y)[1], seen.pixel(other.x + x, other.y + y)[1], BACK.light[1]];
      ink += Math.abs(a - back);
      differs += Math.abs(a - b);
    }
  }
  return differs / ink;
}

for (const webgl of [true, false]) {
  const by = webgl ? "by WebGL" : "as elements";

  test(`underscores are seen, drawn ${by}`, async () => {
    const { page, id } = await openSession("underscores", { webgl });
    await drawsBy(page, webgl);
    await type(page, "printf '\\033[2J\\033[H____\\033[4;1H\\033[?25l'; sleep 100\n");
    await shows(page, "____");
    const { x, y, wide, high } = await cell(page);
    // What is drawn follows what is known a moment later.
    await until(async () => {
      const { width, height, pixel } = await picture(page, { x, y, width: wide * 6, height: Math.ceil(high) + 2 });
      const isDrawn = (at) => Math.abs(pixel(Math.floor(wide * 2), at)[0] - pixel(width - 1, at)[0]) > 50;
      return [...Array(height).keys()].some(isDrawn) || undefined;
    }, "underscores");
    await close({ page, id });
  });

  test(`what follows letters from right to left, wide or joined ones stays in its column, drawn ${by}`, async () => {
    const { page, id } = await openSession("columns", { webgl, colorScheme: "light" });
    await drawsBy(page, webgl);
    await prints(page, LINES.map(([, text, columns]) => `${text}${" ".repeat(COLUMN - columns)}${TAIL}\n`).join(""));
    const { x, y, wide, high } = await cell(page);
    let wrong;
    await until(async () => {
      const seen = await picture(page, { x, y, width: wide * (COLUMN + TAIL.length + 1), height: high * LINES.length });
      const tail = (row) => ({ x: Math.round(wide * COLUMN), y: Math.round(row * high), width: Math.floor(wide * TAIL.length), height: Math.floor(high) });
      const column = (row, colour) => {
        const { left, right } = extent(seen, colour, Math.ceil(row * high), Math.floor((row + 1) * high)) ?? {};
        return (left + right + 1) / 2 / wide;
      };
      wrong = [];
      for (const [row, [name, text, columns]] of LINES.entries()) {
        const differs = difference(seen, tail(0), tail(row));
        if (!(differs < 0.1)) wrong.push(`after ${name} there is something else than ${TAIL}: ${differs}`);
        if (!text.includes(escape(FIRST))) continue;
        const [first, last] = [column(row, FIRST), column(row, LAST)];
        // The order of the cells, as the cursor and a selection go by them.
        if (Math.floor(first) !== 0 || Math.floor(last) !== columns - 1) wrong.push(`${name} goes from ${first} to ${last}`);
      }
      return wrong.length === 0 || undefined;
    }, "columns").catch(() => assert.fail(wrong.join("\n")));
    await shot(page, `columns-${webgl}`);
    await close({ page, id });
  });
}

test("without WebGL, and when it is taken away, the page's elements draw", async () => {
  const rows = (page) => page.evaluate(() => [...document.querySelectorAll(".xterm-rows > div")].map((row) => row.textContent.trimEnd()).join("\n"));
  const { page, id } = await openSession("lost", { webgl: true });
  await page.locator(".xterm-screen canvas").first().waitFor({ state: "attached" });
  await type(page, "echo be''fore\n");
  await shows(page, "before");
  await page.evaluate(() => {
    for (const canvas of document.querySelectorAll(".xterm-screen canvas")) {
      canvas.getContext("webgl2")?.getExtension("WEBGL_lose_context").loseContext();
    }
  });
  await until(async () => (await page.locator(".xterm-screen canvas").count()) === 0 || undefined, "that the canvas is gone");
  await type(page, "echo af''ter\n");
  await until(async () => /before[^]*after/.test(await rows(page)) || undefined, "rows");
  await close({ page, id });

  const without = await openSession("without", {
    webgl: true,
    before: () => {
      const get = HTMLCanvasElement.prototype.getContext;
      HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
        return kind.startsWith("webgl") ? null : get.call(this, kind, ...more);
      };
    },
  });
  await type(without.page, "echo dr''awn\n");
  await until(async () => (await rows(without.page)).includes("drawn") || undefined, "rows");
  assert.equal(await without.page.locator(".xterm-screen canvas").count(), 0);
  await close(without);
});

for (const colorScheme of ["dark", "light"]) {
  test(`what can't be typed into at the moment is dimmed once, and can be read: ${colorScheme}`, async (context) => {
    const between = await breakable(context);
    const made = await api("POST", "sessions", { name: "dimmed" });
    const page = await open(`${between.address}#token=${token}`, { webgl: true, colorScheme });
    await connected(page);
    await page.goto("about:blank");
    await page.goto(`${between.address}#session=${made.sessionId}`);
    await connected(page);
    await drawsBy(page, true);
    await prints(page, `${escape(MARK, 48)}        \x1b[m\n`);
    const { x, y, wide, high } = await cell(page);
    const middle = { x: Math.round(x + wide * 4), y: Math.round(y + high / 2) };
    await isSeen(page, middle, MARK, "what was printed");
    between.refuse();
    await page.locator("#banner-text", { hasText: "The connection is lost" }).waitFor();
    const once = MARK.map((part, at) => 0.72 * part + 0.28 * BACK[colorScheme][at]);
    await isSeen(page, middle, once, "dimmed once");
    // It is so for good, not on the way to something darker.
    await page.waitForFunction(() => document.getAnimations().every((one) => one.effect.target.id !== "terminal"));
    await isSeen(page, middle, once, "dimmed once");
    await shot(page, `away-${colorScheme}`);
    between.accept();
    await connected(page);
    await isSeen(page, middle, MARK, "not dimmed any more");
    await page.context().close();
    await api("DELETE", `sessions/${made.sessionId}`);
  });

  test(`the screen of a session that has ended is as it was, in a terminal as large as its place: ${colorScheme}`, async () => {
    const { page, id } = await openSession("over", { webgl: true, colorScheme });
    await drawsBy(page, true);
    writeFileSync(join(root, "printed"), `${escape(MARK, 48)}        \x1b[m\n`);
    await type(page, "clear; printf '\\033[?25l'; cat printed; exec sh -c 'echo o''ver'\n");
    await page.locator('#status[data-state="ended"]').waitFor();
    await shows(page, "over");
    const look = async (width, height) => {
      const { x, y, wide, high } = await cell(page);
      const place = await page.evaluate(() => document.querySelector("#terminal-view").getBoundingClientRect().toJSON());
      await isSeen(page, { x: Math.round(x + wide * 4), y: Math.round(y + high / 2) }, MARK, "what was printed, not dimmed");
      // Left of the first column, and right and below of the last one.
      const bottom = (await page.evaluate(() => document.querySelector("#terminal").getBoundingClientRect().bottom)) - 2;
      for (const [left, top] of [[place.x + 2, y + 40], [place.right - 3, y + 40], [place.x + width / 2, bottom]]) {
        await isSeen(page, { x: Math.round(left), y: Math.round(top) }, BACK[colorScheme], `no edge at ${left}, ${top}`);
      }
    };
    await look(900, 600);
    // Also in a window of another size than it ended in.
    await page.setViewportSize({ width: 1700, height: 1000 });
    await page.waitForFunction(() => document.querySelector("#terminal").getBoundingClientRect().right > 1600);
    await look(1300, 900);
    await shot(page, `over-${colorScheme}`);
    await close({ page, id });
  });
}

test("on a phone, a finger moves to what is right of the page, and back", async () => {
  const wide = await openSession("pan", { viewport: { width: 1600, height: 1000 } });
  await prints(wide.page, `left\n${escape(MARK, 48)}  \x1b[m\n`);
  const { cols } = await wide.page.evaluate(() => window.splengine.size());
  await wide.page.keyboard.press("Control+c");
  await prints(wide.page, `left\n${" ".repeat(cols - 4)}${escape(MARK, 48)}    \x1b[m\n`);
  const phone = await open(`${bench.server.page}#token=${token}`, { viewport: { width: 390, height: 780 }, hasTouch: true, isMobile: true, webgl: true });
  await connected(phone);
  await phone.goto("about:blank");
  await phone.goto(`${bench.server.page}#session=${wide.id}`);
  await connected(phone);
  await shows(phone, "ready");
  await phone.locator("#terminal.follows").waitFor();
  await drawsBy(phone, true);
  const place = await phone.evaluate(() => document.querySelector("#terminal").getBoundingClientRect().toJSON());
  const marked = async () => {
    const seen = await picture(phone, { x: place.x, y: place.y, width: place.width, height: 60 });
    return extent(seen, MARK, 0, seen.height);
  };
  assert.equal(await marked(), null, "there is more than there is room for");
  const session = await phone.context().newCDPSession(phone);
  const touch = (type, x) => session.send("Input.dispatchTouchEvent", { type, touchPoints: x === undefined ? [] : [{ x, y: 300 }] });
  const swipe = async (from, to) => {
    await touch("touchStart", from);
    for (let at = 1; at <= 10; at += 1) await touch("touchMove", from + ((to - from) * at) / 10);
    await touch("touchEnd");
  };
  // As far as the finger goes, so many pixels.
  await swipe(350, 150);
  await until(async () => Math.abs((await phone.evaluate(() => document.querySelector("#terminal").scrollLeft)) - 200) < 20 || undefined, "200 pixels to the right");
  for (let at = 0; at < 5; at += 1) await swipe(350, 50);
  await until(async () => ((await marked())?.right ?? 0) > 300 || undefined, "the last column");
  await shot(phone, "phone-right");
  assert.equal(await phone.evaluate(() => scrollX), 0, "the page itself stays");
  for (let at = 0; at < 6; at += 1) await swipe(50, 350);
  await until(async () => (await marked()) === null || undefined, "the first column");
  await phone.context().close();
  await close(wide);
});

test("nothing went elsewhere, and nothing complained", () => {
  assert.deepEqual(problems, []);
});
