// The console as its users meet it: what is typed, touched, and said.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { api, asks, asksNoMore, bench, close, connected, draws, log, open, openSession, problems, proxy, shot, shows, text, token, type, until } from "./support.js";

test("a paste brings no control characters", async () => {
  const { page, id } = await openSession("paste");
  await type(page, "echo re''ady; cat -v\n");
  await shows(page, "ready");
  const paste = (text) =>
    page.evaluate((pasted) => {
      const data = new DataTransfer();
      data.setData("text/plain", pasted);
      document.querySelector(".xterm-helper-textarea").dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
    }, text);
  await paste("one\u0001\u0007\u001btwo\u009bthree\tfour\n");
  await shows(page, "onetwothree");
  // The marks of the paste itself may be there, if the shell had not begun with the command.
  const shown = (await text(page)).split("cat -v").at(-1).replace(/\^\[\[20[01]~/g, "");
  assert.ok(!/\^|M-/.test(shown), shown);
  await close({ page, id });
});

test("a finger scrolls back, and flicks", async () => {
  const { page, id } = await openSession("touch", { viewport: { width: 390, height: 780 }, hasTouch: true, isMobile: true });
  await type(page, "clear; seq 1 300; echo do''ne\n");
  await draws(page, /^300 *$/);
  const top = () => page.evaluate(() => Number(document.querySelector(".xterm-rows > div").textContent.trim()));
  const before = await top();
  const session = await page.context().newCDPSession(page);
  const touch = (type, y) => session.send("Input.dispatchTouchEvent", { type, touchPoints: y === undefined ? [] : [{ x: 200, y }] });
  await touch("touchStart", 200);
  for (let y = 220; y <= 600; y += 20) await touch("touchMove", y);
  await touch("touchEnd");
  await page.waitForFunction((was) => Number(document.querySelector(".xterm-rows > div").textContent.trim()) < was - 15, before);
  // One that is let go while it moves goes on by itself.
  const slow = await top();
  await touch("touchStart", 200);
  for (let y = 240; y <= 400; y += 40) await touch("touchMove", y);
  await touch("touchEnd");
  const left = slow - (await top());
  await page.waitForFunction(([was, by]) => was - Number(document.querySelector(".xterm-rows > div").textContent.trim()) > by + 2, [slow, left]);
  // In a program that has the screen to itself, it is the wheel.
  await type(page, "seq 1000 2000 | less\n");
  await draws(page, /^1000$/);
  await touch("touchStart", 600);
  for (let y = 580; y >= 300; y -= 20) await touch("touchMove", y);
  await touch("touchEnd");
  await page.waitForFunction(() => Number(document.querySelector(".xterm-rows > div").textContent.trim()) > 1003);
  await page.keyboard.press("q");
  await close({ page, id });
});

test("the last row is whole at every height", async () => {
  const { page, id } = await openSession("heights", { viewport: { width: 1000, height: 700 } });
  for (let height = 690; height < 707; height += 2) {
    await page.setViewportSize({ width: 1000, height });
    const measured = () =>
      page.evaluate(() => {
        const place = document.querySelector("#terminal").getBoundingClientRect();
        const screen = document.querySelector(".xterm-screen").getBoundingClientRect();
        return { inner: innerHeight, left: place.bottom - screen.bottom, row: screen.height / window.splengine.size().rows };
      });
    // With the most rows that there is room for, the size stays as it is.
    let last;
    await until(async () => {
      last = await measured();
      return (last.inner === height && last.left >= -0.5 && last.left < last.row) || undefined;
    }, `the last row whole at ${height}`).catch((error) => assert.fail(`${error.message}: ${JSON.stringify(last)}`));
  }
  await close({ page, id });
});

test("after a dialog the keyboard is in the terminal", async () => {
  const { page, id } = await openSession("focus");
  const types = async (word) => {
    await page.keyboard.type(`echo ${word}-''typed\n`);
    await shows(page, `${word}-typed`);
  };
  await page.click("#save");
  await asks(page);
  await page.keyboard.type("kept");
  await page.keyboard.press("Enter");
  await asksNoMore(page);
  await types("saved");
  await page.click("#share");
  await asks(page);
  await page.keyboard.press("Escape");
  await asksNoMore(page);
  await types("shared");
  await page.click("#end");
  await page.click("dialog >> text=Keep running");
  await asksNoMore(page);
  await types("kept");
  await page.click("#theme");
  await types("themed");
  await page.click("#more button");
  await page.click(".menu:popover-open >> text=Rename…");
  await asks(page);
  await page.keyboard.press("Enter");
  await asksNoMore(page);
  await types("renamed");
  await close({ page, id });
});

test("a proxy that changes the Host is told of, with what would help", async (context) => {
  const address = await proxy(context, (headers) => ({ ...headers, host: "inner.example" }));
  const page = await open(address);
  await page.fill("#token", token);
  await page.click("#login button");
  await page.locator("#login-problem", { hasText: "proxy_set_header Host" }).waitFor();
  const words = await page.textContent("#login-problem");
  assert.ok(words.includes(new URL(address).origin) && words.includes("inner.example"), words);
  const line = await until(() => log.find((one) => one.includes("allow-origins")), "a line in the log");
  assert.ok(line.includes("inner.example") && line.includes(new URL(address).origin), `${log}`);
  await page.context().close();
});

test("each user sees what their scopes allow, and no more", async () => {
  const as = async (user, response = () => null) => {
    const page = await open(bench.server.page);
    page.on("response", response);
    await page.goto(`${bench.server.page}#token=${user}s-very-long-token`);
    await page.reload();
    return page;
  };
  const runner = await as("runner");
  await runner.locator("#batches-view").waitFor();
  assert.equal(await runner.locator("#tabs").isVisible(), false, "there is one view");
  assert.equal(await runner.locator("#terminal-view").isVisible(), false);
  await runner.click("#new-batch");
  await runner.getByLabel("Commands").fill("echo hi");
  await runner.getByRole("button", { name: "Run batch" }).click();
  await runner.locator("#batch-state", { hasText: "succeeded" }).waitFor();
  await runner.context().close();
  const refused = [];
  const watcher = await as("watcher", (response) => response.status() === 403 && refused.push(response.url()));
  await watcher.locator("#nothing", { hasText: "No session is running" }).waitFor();
  assert.equal(await watcher.locator("#new").isVisible(), false);
  assert.equal(await watcher.locator("text=New session").count(), 1, "nothing is offered that is refused");
  await watcher.waitForLoadState("networkidle");
  assert.deepEqual(refused, [], "nothing is asked for that is refused");
  await watcher.context().close();
  const filer = await as("filer");
  await filer.locator("#no-view", { hasText: "permission files" }).waitFor();
  await filer.context().close();
});

test("OSC 11 sets the background, as OSC 10 does the letters", async () => {
  const { page, id } = await openSession("colours");
  await type(page, "printf '\\033]10;#101010\\a\\033]11;#fffff0\\a'; clear; echo colou''red\n");
  await shows(page, "coloured");
  const colour = () => page.evaluate(() => getComputedStyle(document.querySelector(".xterm-scrollable-element")).backgroundColor);
  await until(async () => (await colour()) === "rgb(255, 255, 240)" || undefined, "the background that was set");
  const letters = () => page.evaluate(() => getComputedStyle(document.querySelector(".xterm-rows")).color);
  await until(async () => (await letters()) === "rgb(16, 16, 16)" || undefined, "the letters' colour that was set");
  await close({ page, id });
});

test("a program that asks is told the colours of the theme that is shown, also when nobody looks on", async () => {
  const { page, id } = await openSession("asks", { colorScheme: "light" });
  const asks = (code) => `IFS= read -rs -t 20 -d '\\\\' -p $'\\e]${code};?\\e\\\\' answer; echo "colour$answer" | tr -d '\\033'`;
  const told = (code, [red, green, blue]) => `colour]${code};rgb:${red}${red}/${green}${green}/${blue}${blue}`;
  await type(page, `${asks(11)}\n`);
  await shows(page, told(11, ["fc", "fc", "fd"]));
  await type(page, `${asks(10)}\n`);
  await shows(page, told(10, ["1f", "27", "33"]));
  await page.click("#theme");
  await type(page, `clear; ${asks(11)}\n`);
  await shows(page, told(11, ["0f", "13", "18"]));
  await page.context().close();
  const session = (path, options) =>
    fetch(`http://${bench.server.http}/api/v1/sessions/${id}/${path}`, { headers: { Authorization: `Bearer ${token}` }, ...options });
  assert.equal((await session("input", { method: "POST", body: `clear; ${asks(10)}\n` })).status, 204);
  await until(async () => (await (await session("screen")).text()).includes(told(10, ["d8", "de", "e6"])) || undefined, "the colour of text");
  await api("DELETE", `sessions/${id}`);
});

test("who comes back by a link that is over reads why", async () => {
  const { page, id } = await openSession("expires");
  const { ticket, shareId } = await api("POST", `sessions/${id}/shares`, { access: "view", expiresIn: 60_000 });
  // What the page does every four seconds, it does when it is told to.
  const before = () => {
    const set = window.setInterval;
    window.turns = [];
    window.setInterval = (act, after) => (after === 4000 ? window.turns.push(act) : set(act, after));
  };
  const guest = await open(`${bench.server.page}#ticket=${ticket}`, { before });
  await connected(guest);
  await guest.reload();
  await connected(guest);
  await type(page, "echo last-''words\n");
  await shows(guest, "last-words");
  await api("DELETE", `sessions/${id}/shares/${shareId}`);
  await guest.locator("#banner-text", { hasText: "This link has expired or was revoked" }).waitFor();
  // It stays so, with what was seen last: nothing is asked for that would be refused.
  const asked = [];
  guest.on("request", (request) => asked.push(new URL(request.url()).pathname));
  assert.ok(await guest.evaluate(() => window.turns.map((turn) => turn()).length > 0));
  await guest.evaluate(() => fetch("icon.svg").then(() => null, () => null));
  await until(() => asked.find((path) => path === "/icon.svg"), "a request that came after those");
  assert.deepEqual(asked, ["/icon.svg"]);
  assert.ok((await text(guest)).includes("last-words"));
  await guest.locator("#banner-text", { hasText: "This link has expired or was revoked" }).waitFor();
  await guest.reload();
  await guest.locator("#login-problem", { hasText: "This link has expired or was revoked" }).waitFor();
  await guest.context().close();
  await close({ page, id });
});

for (const timersLate of [0, 300]) {
  test(`what a soft keyboard types arrives once${timersLate > 0 ? ", with late timers" : ""}`, async () => {
    const { page, id } = await openSession("composing", { timersLate });
    await type(page, "echo re''ady; cat\n");
    await shows(page, "ready");
    const session = await page.context().newCDPSession(page);
    const key = (more) => session.send("Input.dispatchKeyEvent", more);
    const unnamed = (type) => key({ type, key: "Unidentified", code: "", windowsVirtualKeyCode: 229 });
    const compose = (text) => session.send("Input.imeSetComposition", { text, selectionStart: text.length, selectionEnd: text.length });
    const insert = (text) => session.send("Input.insertText", { text });
    const line = async (wanted) => {
      await page.keyboard.press("Enter");
      // As the terminal echoes it, and as the program prints it.
      await page.waitForFunction((line) => window.splengine.terminalText().split("\n").filter((one) => one === line).length === 2, wanted)
        .catch(async () => assert.fail(`${wanted} is not there twice, but:\n${await text(page)}`));
    };
    // A space ends the word.
    await unnamed("rawKeyDown");
    await compose("w");
    await unnamed("rawKeyDown");
    await compose("word");
    await key({ type: "rawKeyDown", key: " ", code: "Space", windowsVirtualKeyCode: 32, text: " " });
    await insert("word");
    await key({ type: "char", key: " ", code: "Space", windowsVirtualKeyCode: 32, text: " " });
    await key({ type: "keyUp", key: " ", code: "Space", windowsVirtualKeyCode: 32 });
    await page.keyboard.type("!");
    await line("word !");
    // The composition ends by itself, and the next key comes at once.
    await compose("に");
    await insert("日本");
    await page.keyboard.type("?");
    await line("日本?");
    // Keys that have no name, and a deletion.
    for (const digit of "123") {
      await unnamed("rawKeyDown");
      await insert(digit);
      await unnamed("keyUp");
    }
    await line("123");
    await close({ page, id });
  });
}

test("tabs go by arrows, and the address says what is shown", async () => {
  const { page, id } = await openSession("tabs");
  await page.focus("#tab-terminal");
  await page.keyboard.press("ArrowRight");
  await page.locator("#tab-batches:focus[aria-selected=true]").waitFor();
  assert.match(page.url(), /#batches$/);
  await page.reload();
  await page.locator("#batches-view").waitFor();
  await page.locator("#no-batches-text", { hasText: "There are no batches yet" }).waitFor();
  const { id: batch } = await api("POST", "batches", { name: "by address", steps: [{ command: "true" }] });
  await page.goto("about:blank");
  await page.goto(`${bench.server.page}#batch=${batch}`);
  await page.locator("#batch-name", { hasText: "by address" }).waitFor();
  await page.focus("#tab-batches");
  await page.keyboard.press("ArrowLeft");
  await page.locator("#terminal-view").waitFor();
  await page.context().close();
  await api("DELETE", `sessions/${id}`);
  await api("DELETE", `sessions/${id}`);
  const late = await open(`${bench.server.page}#token=${token}`);
  await connected(late);
  await late.goto("about:blank");
  await late.goto(`${bench.server.page}#session=spl-alice-aaaaaaaaaaaaaaaaaaaaaaaaaa`);
  await late.locator("#nothing", { hasText: "no longer exists" }).waitFor();
  await shot(late, "no-longer");
  assert.equal(await late.locator("#terminal").isVisible(), false, "no other session is opened in its place");
  await late.context().close();
});

for (const [size, options] of [["laptop", {}], ["phone", { viewport: { width: 390, height: 780 }, hasTouch: true, isMobile: true }]]) {
  test(`the head stays in its place, whatever the session is called: ${size}`, async () => {
    const { page, id } = await openSession("s", options);
    const places = () =>
      page.evaluate(() => ["tab-terminal", "tab-batches", "find", "more"].map((id) => Math.round(document.getElementById(id).getBoundingClientRect().x)));
    const before = await places();
    await type(page, "printf '\\033]2;%0150d\\a' 7; echo na''med\n");
    await shows(page, "named");
    await page.waitForFunction(() => document.documentElement.scrollWidth <= innerWidth);
    await api("PATCH", `sessions/${id}`, { name: "a name that is much longer than any head has place for, and longer still" });
    await page.locator("#title", { hasText: "longer still" }).waitFor();
    assert.deepEqual(await places(), before);
    // Nor does the other view move the tabs.
    await page.click("#tab-batches");
    await page.locator("#batches-view").waitFor();
    assert.deepEqual((await places()).slice(0, 2), before.slice(0, 2));
    await close({ page, id });
  });
}

test("what runs tells its time, and all of its output can be had", async () => {
  const page = await open(`${bench.server.page}#token=${token}`);
  await connected(page);
  await page.click("#tab-batches");
  await page.click("#new-batch");
  await page.locator("dialog .hint", { hasText: "without a shell" }).waitFor();
  const script = "printf \"\\033[31mred\\033[0m\\nprogress 10%%\\rprogress 100%%\\rdone\\033[K\\n\"; i=0; while [ $i -lt 3000 ]; do echo \"line $i of many, which are long enough to be cut where only so much is shown\"; i=$((i+1)); done; sleep 600";
  await page.getByLabel("Commands").fill(`sh -c '${script}'`);
  await page.getByRole("button", { name: "Run batch" }).click();
  const detail = page.locator("#steps .detail");
  await detail.getByText("running").waitFor();
  const seconds = async () => Number(/(\d+)\.0 s/.exec(await detail.textContent())?.[1] ?? 0);
  await page.waitForFunction(() => /[2-9]\.0 s/.test(document.querySelector("#steps .detail").textContent));
  const then = await seconds();
  await page.waitForFunction((was) => Number(/(\d+)\.0 s/.exec(document.querySelector("#steps .detail").textContent)?.[1]) > was, then);
  await page.click("#steps .open");
  await page.locator("#step-stdout").getByText("line 2999 of many").waitFor();
  await page.locator("#out-cut", { hasText: "Only the end" }).waitFor();
  assert.ok(!(await page.textContent("#step-stdout")).includes("line 0 of"));
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#out-all")]);
  const all = readFileSync(await download.path(), "utf8");
  assert.ok(all.includes("\x1b[31mred") && all.includes("line 0 of") && all.includes("line 2999 of"));
  await page.click("#cancel-batch");
  const buttons = await page.locator("dialog .buttons button").allTextContents();
  assert.deepEqual(buttons, ["Keep running", "Cancel batch"]);
  await page.click("dialog button[type=submit]");
  await page.locator("#batch-state", { hasText: "cancelled" }).waitFor();

  await page.click("#new-batch");
  await page.getByLabel("Commands").fill("sh -c 'printf \"\\033[31mred\\033[0m\\nprogress 10%%\\rprogress 100%%\\rdone\\033[K\\n\"'");
  await page.getByRole("button", { name: "Run batch" }).click();
  await page.locator("#batch-state", { hasText: "succeeded" }).waitFor();
  await page.click("#steps .open");
  await page.locator("#step-stdout").getByText("done").waitFor();
  assert.equal(await page.textContent("#step-stdout"), "red\ndone\n");
  assert.notEqual(await page.evaluate(() => document.querySelector("#step-stdout span[style*=color]")?.textContent), undefined);
  await page.context().close();
});

test("a program copies to the clipboard once that is allowed, and is asked for once", async () => {
  const { page, id } = await openSession("osc52", { permissions: ["clipboard-read", "clipboard-write"] });
  const clipboard = () => page.evaluate(() => navigator.clipboard.readText());
  await page.evaluate(() => navigator.clipboard.writeText("before"));
  const copies = (word) => type(page, `printf '\\033]52;c;%s\\a' $(printf ${word} | base64)\n`);
  await copies("first");
  await page.locator("#prompt", { hasText: "clipboard" }).waitFor();
  assert.equal(await clipboard(), "before");
  // It takes no keys.
  await page.keyboard.type("echo go''es-on\n");
  await shows(page, "goes-on");
  await page.click("#prompt >> text=Allow");
  await page.waitForFunction(() => navigator.clipboard.readText().then((text) => text === "first"));
  await copies("second");
  await page.waitForFunction(() => navigator.clipboard.readText().then((text) => text === "second"));
  assert.equal(await page.locator("#prompt").isVisible(), false);
  // What is in there is never told.
  await type(page, "clear; printf '\\033]52;c;?\\a'; read -t 1 -n 5 x; echo got:${#x}\n");
  await shows(page, "got:0");
  await close({ page, id });
});

test("a terminal that a program left behind is reset, for everybody", async () => {
  const { page, id } = await openSession("reset");
  await type(page, "printf '\\033[?1003h\\033[?1006h\\033[?25l'; echo le''ft\n");
  await shows(page, "left");
  await page.waitForFunction(() => document.querySelector(".xterm.enable-mouse-events"));
  await page.click("#more button");
  await page.click(".menu:popover-open >> text=Reset terminal");
  await page.waitForFunction(() => !document.querySelector(".xterm.enable-mouse-events"));
  await shows(page, "left");
  // Whoever comes later finds it reset, too.
  await page.reload();
  await connected(page);
  await shows(page, "left");
  assert.equal(await page.locator(".xterm.enable-mouse-events").count(), 0);
  await close({ page, id });
});

test("font size and the screen reader are settings that are kept", async () => {
  const { page, id } = await openSession("settings");
  const rows = () => page.evaluate(() => window.splengine.size().rows);
  const before = await rows();
  const set = async (label, value) => {
    await page.click("#more button");
    await page.click(".menu:popover-open >> text=Settings…");
    const input = page.getByLabel(label);
    if (value === true) await input.check();
    else await input.fill(value);
    await page.click("dialog button[type=submit]");
    await page.locator("dialog").waitFor({ state: "detached" });
  };
  await set("Font size", "24");
  await page.waitForFunction((was) => window.splengine.size().rows < was - 8, before);
  await set("Screen reader", true);
  await type(page, "echo rea''dable\n");
  await page.locator(".xterm-accessibility", { hasText: "readable" }).waitFor({ state: "attached" });
  await page.reload();
  await connected(page);
  await page.locator(".xterm-accessibility", { hasText: "readable" }).waitFor({ state: "attached" });
  assert.ok((await rows()) < before - 8);
  await close({ page, id });
});

test("finding begins at the end, counts, and knows case, words and patterns", async () => {
  const { page, id } = await openSession("find");
  await type(page, "clear; for i in $(seq 1 200); do echo wo''rd $i; done; echo WO''RD last\n");
  await shows(page, "WORD last");
  await page.click("#find");
  await page.keyboard.type("word ");
  await page.locator("#search-count", { hasText: "201 of 201" }).waitFor();
  await page.keyboard.press("Enter");
  await page.locator("#search-count", { hasText: "200 of 201" }).waitFor();
  await page.click("#search-case");
  await page.locator("#search-count", { hasText: "of 200" }).waitFor();
  // Within a word there is none.
  await page.fill("#search-text", "wor");
  await page.locator("#search-count", { hasText: "of 200" }).waitFor();
  await page.click("#search-word");
  await page.locator("#search-count", { hasText: "not found" }).waitFor();
  await page.fill("#search-text", "word");
  await page.locator("#search-count", { hasText: "of 200" }).waitFor();
  await page.click("#search-word");
  await page.click("#search-regex");
  await page.fill("#search-text", "word 1[0-9]{2}$");
  await page.locator("#search-count", { hasText: "of 100" }).waitFor();
  await page.fill("#search-text", "word [");
  await page.locator("#search-count", { hasText: "not a regular expression" }).waitFor();
  await page.keyboard.press("Escape");
  await page.keyboard.type("echo ba''ck\n");
  await shows(page, "back");
  await close({ page, id });
});

test("on a phone, a session that is open elsewhere is readable", async () => {
  const wide = await openSession("wide", { viewport: { width: 1600, height: 1000 } });
  await type(wide.page, "clear; echo fr''om-afar\n");
  await shows(wide.page, "from-afar");
  const phone = await open(`${bench.server.page}#token=${token}`, { viewport: { width: 390, height: 780 }, hasTouch: true, isMobile: true });
  await connected(phone);
  await phone.goto("about:blank");
  await phone.goto(`${bench.server.page}#session=${wide.id}`);
  await connected(phone);
  await shows(phone, "from-afar");
  await phone.waitForFunction(() => document.querySelector("#terminal.follows"));
  const font = await phone.evaluate(() => Number.parseFloat(getComputedStyle(document.querySelector(".xterm-rows")).fontSize));
  assert.ok(font >= 9, `${font} pixels`);
  await shot(phone, "phone-follows");
  await type(phone, "stty si''ze\n");
  await phone.waitForFunction(() => !document.querySelector("#terminal.follows"));
  await phone.context().close();
  await close(wide);
});

test("what the page says of sessions and people is plain", async () => {
  const { page, id } = await openSession("words");
  const row = page.locator("#sessions .current .detail");
  await row.getByText(/^open in 1 place · /).waitFor();
  const other = await open(`${bench.server.page}#token=${token}`);
  await connected(other);
  await other.goto("about:blank");
  await other.goto(`${bench.server.page}#session=${id}`);
  await connected(other);
  await row.getByText(/^open in 2 places · /).waitFor();
  await other.locator("#people li", { hasText: "alice (you)can type" }).waitFor();
  await other.getByRole("button", { name: "Use my window size" }).click();
  await page.locator("#people li", { hasText: "alicecan type, sets the screen size" }).waitFor();
  await other.context().close();
  await page.click("#share");
  const dialog = page.getByRole("dialog", { name: "Share session" });
  await dialog.getByLabel("Permission").selectOption({ label: "View and type" });
  await dialog.getByLabel("Expires after").selectOption({ label: "15 minutes" });
  await dialog.getByRole("button", { name: "Create link" }).click();
  await dialog.locator(".shares li", { hasText: /^View and type, expires .*, not used yet/ }).waitFor();
  await dialog.getByRole("button", { name: "Revoke" }).click();
  await dialog.locator(".shares li").waitFor({ state: "detached" });
  await dialog.getByRole("button", { name: "Close" }).click();
  await page.click("#find");
  for (const name of ["Next match", "Previous match", "Match case"]) await page.getByRole("button", { name }).waitFor();
  await page.keyboard.press("Escape");
  await page.click("#end");
  const end = page.getByRole("dialog", { name: "End this session?" });
  assert.deepEqual(await end.getByRole("button").allTextContents(), ["Keep running", "End session"]);
  await end.getByRole("button", { name: "Keep running" }).click();
  await close({ page, id });
});

test("what the page says of batches is plain, and that there is no shell", async () => {
  const page = await open(`${bench.server.page}#token=${token}`);
  await connected(page);
  await page.click("#tab-batches");
  await page.click("#new-batch");
  const dialog = page.getByRole("dialog", { name: "New batch" });
  await dialog.locator(".hint", { hasText: "Commands run without a shell: |, >, && and ; are refused" }).waitFor();
  await dialog.getByLabel("Commands, one per line").fill("echo a | cat > x");
  await dialog.getByLabel("Run in parallel, in any order").waitFor();
  await dialog.getByRole("button", { name: "Run batch" }).click();
  await dialog.getByRole("alert").getByText("“|” outside of quotes").waitFor();
  await dialog.getByLabel("Commands, one per line").fill("false\ntrue");
  await dialog.getByRole("button", { name: "Run batch" }).click();
  await page.locator("#batch-state", { hasText: "failed" }).waitFor();
  await page.locator("#steps li", { hasText: "skipped · a step before it failed" }).waitFor();
  await page.click("#steps .open");
  await page.locator("#output-of", { hasText: "Step 1: false" }).waitFor();
  await page.getByRole("button", { name: "Rerun failed" }).waitFor();
  await page.getByRole("button", { name: "Rerun all" }).waitFor();
  await page.context().close();
});

test("one can log out however many sessions there are", async () => {
  const ids = [];
  for (let at = 0; at < 12; at += 1) ids.push((await api("POST", "sessions", { name: `many ${at}`, command: "sleep 600" })).sessionId);
  const page = await open(`${bench.server.page}#token=${token}`, { viewport: { width: 1280, height: 560 } });
  await connected(page);
  await page.locator("#sessions .name", { hasText: "many 11" }).waitFor();
  const { bottom, room, hidden } = await page.evaluate(() => {
    const list = document.querySelector("#sidebar");
    return { bottom: document.querySelector("#logout").getBoundingClientRect().bottom, room: innerHeight, hidden: list.scrollHeight - list.clientHeight };
  });
  assert.ok(hidden > 50, "there are more than there is room for");
  assert.ok(bottom <= room, `it ends at ${bottom} of ${room} pixels`);
  await page.context().close();
  for (const id of ids) await api("DELETE", `sessions/${id}`);
});

test("an end that is none of a failure is said calmly, and offers what can be done", async () => {
  const { page, id } = await openSession("calm");
  await type(page, "exit\n");
  await page.locator("#banner-text", { hasText: "exit code 0" }).waitFor();
  await page.locator('#status[data-state="ended"]').waitFor();
  assert.equal(await page.locator("#share, #save, #end").filter({ visible: true }).count(), 0, "what has ended is not shared, saved or ended");
  const covered = await page.evaluate(() => {
    const banner = document.querySelector("#banner").getBoundingClientRect();
    return banner.top < document.querySelector("#terminal").getBoundingClientRect().bottom;
  });
  assert.equal(covered, false, "no output is behind it");
  await shot(page, "ended");
  await close({ page, id });
});

test("nothing went elsewhere, and nothing complained", () => {
  assert.deepEqual(problems, []);
});
