// The console in a real browser (Chromium), against the all-in-one server.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import { test } from "node:test";

import { asks, asksNoMore, bench, breakable, connected, open, problems, proxy, root, sessions, shot, shows, start, stop, text, token, type, until } from "./support.js";

let first;

/** The link that a share was given. */
async function made(page) {
  const input = page.locator("dialog .link input");
  await input.waitFor();
  return input.inputValue();
}

test("the link logs in, and a terminal is there", async () => {
  first = await open(`${bench.server.page}#token=${token}`);
  await connected(first);
  assert.ok(!first.url().includes("token"), "the token is out of the address");
  const cookies = await first.context().cookies();
  assert.equal(cookies.length, 1);
  assert.ok(cookies[0].httpOnly);
  assert.equal(cookies[0].sameSite, "Strict");
  await type(first, "echo he''llo; cd data\n");
  await shows(first, "hello");
  await shows(first, "data#");
  await shot(first, "terminal");
});

test("a reload finds the program and the screen", async () => {
  await type(first, "printf '\\033[1;31mred\\033[m and \\033[44mblue\\033[m\\n'; read -p 'sa''y: ' word\n");
  await shows(first, "say:");
  const before = await text(first);
  await first.reload();
  await connected(first);
  await shows(first, "say:");
  assert.equal(await text(first), before);
  await type(first, "again\n");
  await type(first, "echo got-$word\n");
  await shows(first, "got-again");
});

test("another browser looks on and can't type", async () => {
  await first.click("#share");
  await first.click("text=Create link");
  const link = await made(first);
  assert.match(link, /#ticket=/);
  await shot(first, "share");
  await first.keyboard.press("Escape");
  const viewer = await open(link);
  await connected(viewer);
  await shows(viewer, "got-again");
  assert.ok(await viewer.locator("#access").isVisible());
  // It is not shown for long.
  await Promise.all([viewer.locator("#toast.shown", { hasText: "view only" }).waitFor(), type(viewer, "echo intruder\n")]);
  await type(first, "echo owner-typed\n");
  await shows(viewer, "owner-typed");
  assert.ok(!(await text(first)).includes("intruder"));
  await first.locator("#people li").nth(1).waitFor();
  await shot(viewer, "viewer");
  const again = await open(link);
  await again.locator("#login-problem").filter({ hasText: "not valid" }).waitFor();
  await again.context().close();
  await first.click("#share");
  await first.click("dialog .shares button >> nth=0");
  await viewer.locator("#banner-text", { hasText: "expired or was revoked" }).waitFor();
  await shot(viewer, "taken-back");
  await first.locator("dialog .shares li").waitFor({ state: "detached" });
  await first.keyboard.press("Escape");
  await viewer.context().close();
});

test("the size follows whoever types", async () => {
  await first.click("#share");
  await first.selectOption('dialog select[name="access"]', "control");
  await first.click("text=Create link");
  const link = await made(first);
  await first.keyboard.press("Escape");
  const helper = await open(link, { viewport: { width: 900, height: 500 } });
  await connected(helper);
  await shows(helper, "owner-typed");
  await helper.locator("#people li").nth(1).waitFor();
  const mine = "sets the screen size";
  await first.locator("#people .holds", { hasText: mine }).waitFor();
  await type(helper, "echo he''lped\n");
  await shows(first, "helped");
  await helper.waitForFunction(() => !document.querySelector("#terminal.follows"));
  await first.waitForFunction(() => document.querySelector("#terminal.follows"));
  await type(helper, "clear; stty size\n");
  await helper.waitForFunction(() => /\d+ \d+/.test(window.splengine.terminalText()));
  await shot(first, "follows");
  await type(first, "echo ba''ck\n");
  await shows(helper, "back");
  await helper.waitForFunction(() => document.querySelector("#terminal.follows"));
  // By hand, too, in both ways; and the keyboard is back in the terminal.
  await helper.click("#control");
  await first.waitForFunction(() => document.querySelector("#terminal.follows"));
  await helper.locator("#people button", { hasText: "Use their window size" }).click();
  await first.waitForFunction(() => !document.querySelector("#terminal.follows"));
  await helper.keyboard.type("echo still-he''re\n");
  await shows(first, "still-here");
  await helper.context().close();
});

test("save, load, rename and end", async () => {
  await type(first, "clear; echo keep-this\n");
  await shows(first, "keep-this");
  await first.click("#save");
  await first.fill("dialog input", "kept");
  await first.click("dialog button[type=submit]");
  await first.locator("#saved .name", { hasText: "kept" }).waitFor();
  await first.click("#sessions li:first-child .more");
  await first.click("text=Rename…");
  await first.fill("dialog input", "renamed");
  await first.click("dialog button[type=submit]");
  await first.locator("#sessions .name", { hasText: "renamed" }).waitFor();
  await first.locator("#title", { hasText: "renamed" }).waitFor();
  await first.click("#saved .open");
  await shows(first, "keep-this");
  await shows(first, "restored");
  assert.equal((await sessions()).filter((one) => one.state === "running").length, 2);
  await shot(first, "loaded");
  await first.click("#end");
  await first.click("dialog button[type=submit]");
  await first.locator("#banner-text", { hasText: "ended" }).waitFor();
  // The list follows a little later, and what has ended is not to be opened.
  const left = (await sessions()).length;
  await first.waitForFunction((count) => document.querySelectorAll("#sessions li").length === count, left);
  await first.click("#sessions .open");
  await connected(first);
  await shows(first, "keep-this");
});

/** Waits until the page shows what the server says that the screen is. */
async function agrees(page) {
  const lines = (text) => text.split("\n").map((line) => line.trimEnd()).join("\n").trimEnd();
  let [wanted, seen] = ["", ""];
  for (let attempt = 0; attempt < 600; attempt += 1) {
    const id = new URLSearchParams(new URL(page.url()).hash.slice(1)).get("session");
    const response = await fetch(`http://${bench.server.http}/api/v1/sessions/${id}/screen`, { headers: { Authorization: `Bearer ${token}` } });
    wanted = lines(await response.text());
    seen = lines(await text(page));
    if (seen === wanted) return;
    await page.waitForTimeout(50);
  }
  assert.equal(seen, wanted);
}

for (const [name, command, sign, leave] of [
  ["vim", "vim -u NONE -N -c 'set number' /etc/services", "tcpmux", ":q\n"],
  ["less", "less /etc/services", "tcpmux", "q"],
  ["tmux", "tmux -L splengine-test -f /dev/null new-session 'echo in''side; read x'", "inside", "\n"],
  ["htop", "htop -d 100", "PID", "q"],
]) {
  test(`${name} is drawn right, also after a reload`, async () => {
    await type(first, `clear; ${command}\n`);
    await shows(first, sign);
    await agrees(first);
    await first.reload();
    await connected(first);
    await shows(first, sign);
    await agrees(first);
    await shot(first, name);
    await type(first, leave);
    // It might read what is typed before the shell has its terminal back.
    await shows(first, "data#");
    await type(first, `clear; echo le''ft-${name}\n`);
    await shows(first, `left-${name}`);
  });
}

test("a smaller window that follows points at the same letters", async () => {
  await type(first, "clear; printf 'left%60sTH''ERE\\n'\n");
  await shows(first, "THERE");
  const small = await open(`${bench.server.page}#token=${token}`, { viewport: { width: 700, height: 640 } });
  await connected(small);
  await shows(small, "THERE");
  await small.waitForFunction(() => document.querySelector("#terminal.follows"));
  // All of the session is in sight.
  await small.waitForFunction(() => {
    const { right, bottom } = document.querySelector(".xterm-screen").getBoundingClientRect();
    const room = document.querySelector("#terminal").getBoundingClientRect();
    return right <= room.right && bottom <= room.bottom;
  });
  // A row is in its place only once it is drawn.
  await small.waitForFunction(() => [...document.querySelectorAll(".xterm-rows > div")].some((one) => /^left +THERE/.test(one.textContent)));
  const box = await small.evaluate(() => {
    const rows = [...document.querySelectorAll(".xterm-rows > div")];
    const row = rows.find((one) => /^left +THERE/.test(one.textContent));
    const words = document.createTreeWalker(row, NodeFilter.SHOW_TEXT);
    for (let node = words.nextNode(); node; node = words.nextNode()) {
      const at = node.textContent.indexOf("THERE");
      if (at < 0) continue;
      const range = document.createRange();
      range.setStart(node, at);
      range.setEnd(node, at + 5);
      const { left, top, width, height } = range.getBoundingClientRect();
      return { x: left + width / 2, y: top + height / 2 };
    }
    return null;
  });
  await small.mouse.dblclick(box.x, box.y);
  await small.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await Promise.all([small.locator("#toast.shown", { hasText: "Copied" }).waitFor(), small.keyboard.press("Control+Shift+C")]);
  assert.equal(await small.evaluate(() => navigator.clipboard.readText()), "THERE");
  await small.context().close();
});

test("the keyboard is enough", async () => {
  await first.locator(".xterm-helper-textarea").focus();
  await first.keyboard.press("Control+Shift+H");
  await first.locator("dialog", { hasText: "Ctrl" }).waitFor();
  await first.keyboard.press("Enter");
  await asksNoMore(first);
  await first.keyboard.press("Control+Shift+F");
  await first.keyboard.type("no such words");
  await first.locator("#search-count", { hasText: "not found" }).waitFor();
  await first.keyboard.press("Escape");
  await first.keyboard.press("Control+Shift+Y");
  await asks(first);
  await first.keyboard.type("by keys");
  await first.keyboard.press("Tab");
  await first.keyboard.type("no-such-program");
  await first.keyboard.press("Enter");
  await first.locator("dialog .problem", { hasText: "no-such-program" }).waitFor();
  await shot(first, "refused");
  assert.ok((await text(first)).includes("THERE"), "the session before is untouched");
  await first.fill("dialog input >> nth=1", "");
  await first.keyboard.press("Enter");
  await first.locator("#title", { hasText: "by keys" }).waitFor();
  await connected(first);
  await type(first, "echo ke''yed\n");
  await shows(first, "keyed");
  assert.ok(!(await text(first)).includes("THERE"));
  await first.keyboard.press("Control+Shift+L");
  await first.keyboard.press("ArrowDown");
  await first.keyboard.press("Tab");
  await first.keyboard.press("Enter");
  await first.locator(".menu:popover-open").waitFor();
  // A list that is drawn anew does not take the menu away.
  const listed = () => first.waitForResponse((response) => response.url().endsWith("api/v1/sessions"));
  await listed();
  await listed();
  assert.ok(await first.locator(".menu:popover-open").isVisible());
  await shot(first, "menu");
  await first.keyboard.press("ArrowUp");
  await first.locator(".menu:popover-open .danger:focus").waitFor();
  await first.keyboard.press("Escape");
  await first.locator("#sessions .more:focus").waitFor();
  await first.keyboard.press("Shift+Tab");
  await first.keyboard.press("Enter");
  await shows(first, "THERE");
  await connected(first);
});

test("what can be downloaded is what was seen", async () => {
  const get = async (label) => {
    await first.click("#sessions .current .more");
    const [download] = await Promise.all([first.waitForEvent("download"), first.click(`.menu:popover-open >> text=${label}`)]);
    return readFileSync(await download.path(), "utf8");
  };
  assert.ok((await get("Download screen as text")).includes("THERE"));
  const recording = (await get("Download recording")).trim().split("\n");
  assert.ok(JSON.parse(recording[0]).version >= 2);
  assert.ok(recording.some((line) => line.includes("THERE")));
});

test("dark and light, and the choice is kept", async () => {
  const colour = () => first.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await colour();
  await first.click("#theme");
  await first.waitForFunction((was) => getComputedStyle(document.body).backgroundColor !== was, light);
  const dark = await colour();
  await shot(first, "dark");
  await first.reload();
  await connected(first);
  assert.equal(await colour(), dark);
  await first.click("#theme");
  assert.equal(await first.evaluate(() => localStorage.getItem("splengine-theme")), null, "as the system has it, nothing is kept");
});

test("a program ends, and that is said", async () => {
  await type(first, "clear; exit 3\n");
  await first.locator("#banner-text", { hasText: "exit code 3" }).waitFor();
  await first.click("#banner-button");
  await connected(first);
});

test("on a phone, in light", async () => {
  const page = await open(`${bench.server.page}#token=${token}`, { viewport: { width: 390, height: 780 }, colorScheme: "light", hasTouch: true, isMobile: true });
  await connected(page);
  await page.locator("#keys button").first().waitFor();
  await type(page, "echo sm''all\n");
  await shows(page, "small");
  await shot(page, "phone");
  await page.click("#menu");
  await page.locator("#sessions .open").first().waitFor();
  await page.waitForFunction(() => document.getAnimations().length === 0);
  await shot(page, "phone-list");
  await page.touchscreen.tap(380, 400);
  await page.locator("#sidebar").waitFor({ state: "hidden" });
  await page.tap("#keys button >> text=Ctrl");
  await type(page, "v");
  await page.tap("#keys button >> text=Esc");
  await shows(page, "^[");
  await page.tap("#keys button >> text=Ctrl");
  await type(page, "c");
  await shows(page, "^C");
  await page.context().close();
});

test("below another path, behind a proxy", async (context) => {
  const address = await proxy(context);
  const page = await open(`${address}#token=${token}`);
  await connected(page);
  await type(page, "echo pro''xied\n");
  await shows(page, "proxied");
  const [cookie] = await page.context().cookies();
  assert.equal(cookie.path, "/x/y");
  // A link leads to where this page was reached, not to the server's own address.
  await page.click("#share");
  await page.click("text=Create link");
  const link = await made(page);
  assert.ok(link.startsWith(`${address}#ticket=`), link.replace(/#.*/, "#…"));
  const guest = await open(link);
  await connected(guest);
  await shows(guest, "proxied");
  await guest.context().close();
  await page.context().close();
});

test("behind nginx, set up as the README says", async (context) => {
  const readme = readFileSync(new URL("../../README.md", import.meta.url), "utf8");
  const recipe = readme.match(/```nginx\n([^]*?)```/)[1];
  const free = net.createServer().listen(0, "127.0.0.1");
  await once(free, "listening");
  const { port } = free.address();
  await new Promise((done) => free.close(done));
  const home = join(root, "nginx");
  mkdirSync(home);
  const own = recipe.replace(/# listen.*/, `listen 127.0.0.1:${port};`).replace("127.0.0.1:8081", bench.server.ws);
  const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((of) => `${of}_temp_path ${home}/${of};`).join(" ");
  writeFileSync(join(home, "conf"), `daemon off; pid ${home}/pid; error_log stderr; events {}\nhttp { access_log off; ${paths}\n${own}}\n`);
  const nginx = spawn("nginx", ["-p", home, "-c", join(home, "conf")], { stdio: ["ignore", "ignore", "inherit"], env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` } });
  context.after(async () => {
    nginx.kill();
    if (nginx.exitCode === null) await once(nginx, "exit");
  });
  const address = `http://127.0.0.1:${port}/console`;
  const answers = () => fetch(address, { redirect: "manual" }).catch(() => undefined);
  const redirect = await until(answers, "nginx");
  assert.equal(redirect.headers.get("location"), `${address}/`);
  const page = await open(`${address}/#token=${token}`);
  await connected(page);
  await type(page, "echo be''hind\n");
  await shows(page, "behind");
  await page.click("#share");
  await page.click("text=Create link");
  assert.ok((await made(page)).startsWith(`${address}/#ticket=`));
  await page.context().close();
});

test("a wrong token is told in words", async () => {
  const page = await open(bench.server.page);
  await page.fill("#token", "wrong-token-wrong-token");
  await page.click("#login button");
  await page.locator("#login-problem", { hasText: "not valid" }).waitFor();
  await shot(page, "login");
  await page.fill("#token", token);
  await page.click("#login button");
  await connected(page);
  await page.context().close();
});

/** What the page asked to have the size of the session be, since then. */
function sizes(page) {
  const asked = [];
  page.on("websocket", (socket) => {
    socket.on("framesent", ({ payload }) => {
      if (typeof payload === "string" && payload.includes('"resize"')) asked.push(payload);
    });
  });
  return asked;
}

test("a connection that breaks comes back to the same program, unseen", async (context) => {
  const between = await breakable(context);
  const page = await open(`${between.address}#token=${token}`);
  await connected(page);
  await type(page, "clear; echo be''fore; read -p 'as''ks: ' word\n");
  await shows(page, "asks:");
  const before = await text(page);
  const asked = sizes(page);
  await page.evaluate(() => {
    window.drawn = 0;
    new MutationObserver(() => (window.drawn += 1)).observe(document.querySelector(".xterm-rows"), { childList: true, subtree: true, characterData: true });
    document.querySelector(".xterm").dataset.same = "yes";
  });
  const opened = page.waitForEvent("websocket");
  between.cut();
  await opened;
  await connected(page);
  assert.equal(await text(page), before);
  assert.equal(await page.evaluate(() => document.querySelector(".xterm").dataset.same), "yes");
  await type(page, "word\n");
  await type(page, "echo got-$word\n");
  await shows(page, "got-word");
  assert.deepEqual(asked, [], "the program is not disturbed");
  await page.context().close();
});

test("log out ends the login in every tab", async () => {
  const page = await open(`${bench.server.page}#token=${token}`);
  await connected(page);
  const other = await page.context().newPage();
  await other.goto(bench.server.page);
  await connected(other);
  const [cookie] = await page.context().cookies();
  assert.ok(!cookie.value.includes(token), "the cookie is not the token");
  await page.click("#logout");
  await page.locator("#login").waitFor();
  await other.locator("#login").waitFor();
  await shot(other, "logged-out");
  const late = await fetch(`${bench.server.page}me`, { headers: { Cookie: `${cookie.name}=${cookie.value}` } });
  assert.equal(late.status, 401, "what was copied of it is worth nothing");
  assert.deepEqual(await page.context().cookies(), []);
  await page.context().close();
});

test("a link of somebody else's asks before it logs anybody out", async () => {
  const page = await open(`${bench.server.page}#token=${token}`);
  await connected(page);
  const follow = async (link) => {
    await page.goto("about:blank");
    await page.goto(link);
  };
  const link = `${bench.server.page}#token=bobs-very-long-token`;
  await follow(link);
  const dialog = page.locator("dialog", { hasText: "logged in as alice. This link is for bob" });
  await dialog.waitFor();
  await shot(page, "somebody-else");
  await page.click("dialog >> text=Stay");
  await connected(page);
  assert.equal(await page.textContent("#user"), "alice");
  await follow(`${bench.server.page}#token=${token}`);
  await connected(page);
  assert.equal(await page.locator("dialog").count(), 0, "one's own link asks nothing");
  await follow(link);
  await dialog.waitFor();
  await page.click("dialog button[type=submit]");
  await connected(page);
  assert.equal(await page.textContent("#user"), "bob");
  // What bob opened is not left behind for the tests to come.
  await page.click("#end");
  await page.click("dialog button[type=submit]");
  await page.locator("#banner-text", { hasText: "ended" }).waitFor();
  await page.context().close();
});

test("a server that is restarted is waited for, and what it kept is offered", async () => {
  await type(first, "clear; echo kept-so-''far\n");
  await shows(first, "kept-so-far");
  const place = bench.server.ws;
  const room = () => first.evaluate(() => document.querySelector("#terminal").getBoundingClientRect().toJSON());
  const before = await room();
  await stop(bench.server);
  await first.locator("#banner", { hasText: "Trying again" }).waitFor();
  await shot(first, "away");
  assert.deepEqual(await room(), before, "what is said does not move the terminal");
  bench.server = await start(place);
  await first.locator("#banner-text", { hasText: "ended with its server" }).waitFor({ timeout: 20_000 });
  assert.equal(await first.locator("#share, #save, #end").filter({ visible: true }).count(), 0, "what runs no more is not shared");
  await shot(first, "offer");
  await first.getByRole("button", { name: "Restore session" }).click();
  await connected(first);
  await shows(first, "kept-so-far");
  await shows(first, "restored");
});

test("after a crash too", async () => {
  await type(first, "clear; echo cra''shed\n");
  await shows(first, "crashed");
  const place = bench.server.ws;
  await stop(bench.server, "SIGKILL");
  await first.locator("#banner", { hasText: "Trying again" }).waitFor();
  bench.server = await start(place);
  await first.locator("#banner-text", { hasText: "ended with its server" }).waitFor({ timeout: 20_000 });
  await first.locator("#sessions .detail", { hasText: "stopped with the server" }).first().waitFor();
  await first.reload();
  await first.locator("#banner-text", { hasText: "ended with its server" }).waitFor();
  await first.click("#banner-button");
  await connected(first);
  await shows(first, "restored");
  await shot(first, "lost");
});

test("batches are run, watched, cancelled and run again", async () => {
  const page = await open(`${bench.server.page}#token=${token}`);
  await page.getByRole("tab", { name: "Batches" }).click();
  const run = async (lines, more = {}) => {
    await page.locator("#new-batch").click();
    await page.getByLabel("Commands").fill(lines.join("\n"));
    for (const [label, text] of Object.entries(more)) {
      if (label === "parallel") await page.getByLabel("Run in parallel").check();
      else await page.getByLabel(label).fill(text);
    }
    await page.getByRole("button", { name: "Run batch" }).click();
  };
  const go = join(root, "go-on");
  rmSync(go, { force: true });
  await run(
    ["# a comment", "echo first", `sh -c 'echo begun; while [ ! -e ${go} ]; do sleep 0.05; done; echo went on'`, "sh -c 'echo bad >&2; exit 3'", "echo never"],
    { Name: "nightly" },
  );
  await page.locator("#steps li").nth(1).locator(".dot.running").waitFor();
  await page.locator("#steps li").nth(1).locator(".open").click();
  await page.locator("#step-stdout").getByText("begun").waitFor();
  await shot(page, "batch-running");
  writeFileSync(go, "");
  // What it prints comes as it is printed, and the list follows.
  await page.locator("#step-stdout").getByText("went on").waitFor();
  await page.locator("#batch-state").getByText("failed · exit code 3").waitFor();
  assert.deepEqual(
    await page.locator("#steps li .dot").evaluateAll((dots) => dots.map((dot) => dot.className.replace("dot ", ""))),
    ["succeeded", "succeeded", "failed", "skipped"],
  );
  await page.locator("#steps li").nth(2).locator(".open").click();
  await page.locator("#step-stderr").getByText("bad").waitFor();
  await page.locator("#batch-list li.current").getByText("nightly").waitFor();
  await shot(page, "batch-failed");

  await page.getByRole("button", { name: "Rerun failed" }).click();
  await page.waitForFunction(() => document.querySelectorAll("#steps li").length === 2);
  await page.locator("#batch-state").getByText("failed").waitFor();

  await run(["sleep 600", "sleep 600", "true"], { parallel: true });
  await page.locator("#steps .dot.running").nth(1).waitFor();
  await page.locator("#cancel-batch").click();
  await page.locator("dialog button[type=submit]").click();
  await page.locator("#batch-state").getByText("cancelled").waitFor();
  await page.locator("#batch-list li").nth(2).waitFor();
  assert.equal(await page.locator("#batch-list li").count(), 3);

  await run(["nowhere-to-be-found"]);
  await page.getByRole("alert").getByText("Step “1”: program “nowhere-to-be-found” was not found.").waitFor();
  await page.getByRole("button", { name: "Cancel", exact: true }).click();
  await page.locator("#batch-list .open").last().click();
  await page.locator("#batch-name").getByText("nightly").waitFor();
  await page.setViewportSize({ width: 390, height: 760 });
  await shot(page, "batch-phone");
  await page.getByRole("tab", { name: "Terminal" }).click();
  await page.locator("#terminal").waitFor();
  await page.context().close();
});

test("nothing went elsewhere, and nothing complained", () => {
  assert.deepEqual(problems, []);
});
