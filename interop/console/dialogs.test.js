// What the page asks before it does something, and what keys do then.

import assert from "node:assert/strict";
import { test } from "node:test";

import { api, asks, asksNoMore, bench, close, connected, open, openSession, problems, sessions, shot, shows, token, type, until } from "./support.js";

/** The keyboard is in the terminal: what is typed arrives. */
async function types(page, word) {
  await page.keyboard.type(`echo ${word}-''typed\n`);
  await shows(page, `${word}-typed`);
}

/**
 * A question that can't be mistaken: its title, what it says will happen, and its buttons, of which the
 * first changes nothing. Escape, a click beside it and Enter choose that one, and then `unchanged` holds.
 */
async function isHarmless(page, ask, { title, says, buttons }, unchanged) {
  const dialog = page.getByRole("dialog", { name: title, exact: true });
  const answers = [
    () => page.keyboard.press("Escape"),
    () => page.keyboard.press("Enter"),
    () => page.mouse.click(5, 5),
    () => dialog.getByRole("button", { name: buttons[0], exact: true }).click(),
  ];
  for (const [at, answer] of answers.entries()) {
    await ask();
    await dialog.waitFor();
    assert.equal(await dialog.getByRole("heading").textContent(), title);
    assert.deepEqual(await dialog.locator("form > p:not(.problem)").allTextContents(), says);
    assert.deepEqual(await dialog.getByRole("button").allTextContents(), buttons);
    await answer();
    await asksNoMore(page);
    await unchanged(at);
  }
  await ask();
  await dialog.waitFor();
  await dialog.getByRole("button", { name: buttons[1], exact: true }).click();
  await asksNoMore(page);
}

test("removing a saved session is asked for", async () => {
  const { page, id } = await openSession("removes");
  const { savedId } = await api("POST", `sessions/${id}/save`, { name: "precious" });
  const saved = async () => (await api("GET", "saved-sessions")).savedSessions.some((one) => one.savedId === savedId);
  await isHarmless(
    page,
    () => page.getByRole("button", { name: "Remove precious" }).click(),
    { title: "Remove this saved session?", says: ["It can't be restored after that."], buttons: ["Keep session", "Remove session"] },
    async (at) => {
      await types(page, `kept${at}`);
      assert.ok(await saved());
    },
  );
  await until(async () => !(await saved()) || undefined, "that it is removed");
  await page.locator("#saved .name", { hasText: "precious" }).waitFor({ state: "detached" });
  await types(page, "removed");
  await close({ page, id });
});

test("ending a session is asked for, and then removing it", async () => {
  const { page, id } = await openSession("ends");
  const state = async () => (await sessions()).find((one) => one.sessionId === id)?.state;
  await isHarmless(
    page,
    () => page.click("#end"),
    { title: "End this session?", says: ["Everything that runs in it is stopped."], buttons: ["Keep running", "End session"] },
    async (at) => {
      await types(page, `runs${at}`);
      assert.equal(await state(), "running");
    },
  );
  await page.locator('#status[data-state="ended"]').waitFor();
  await until(async () => (await state()) !== "running" || undefined, "the session's end");
  await page.context().close();

  const other = await openSession("exits");
  await type(other.page, "exit\n");
  const row = other.page.locator("#sessions li", { hasText: "exits" });
  await row.locator(".detail", { hasText: "ended" }).waitFor();
  const there = async () => (await sessions()).some((one) => one.sessionId === other.id);
  await isHarmless(
    other.page,
    async () => {
      await row.locator(".more").click();
      await other.page.locator(".menu:popover-open").getByText("Remove session…").click();
    },
    { title: "Remove this session?", says: ["Its screen and its recording are deleted."], buttons: ["Keep session", "Remove session"] },
    async () => assert.ok(await there()),
  );
  await until(async () => !(await there()) || undefined, "that it is removed");
  await row.waitFor({ state: "detached" });
  await other.page.context().close();
});

test("a link of somebody else's is asked about", async () => {
  const { page, id } = await openSession("mine");
  const follow = async () => {
    await page.goto("about:blank");
    await page.goto(`${bench.server.page}#token=bobs-very-long-token`);
  };
  await isHarmless(
    page,
    follow,
    {
      title: "Switch user?",
      says: [
        "You are logged in as alice. This link is for bob.",
        "If you switch, what you type goes into their sessions. Switch only if you expected this link.",
      ],
      buttons: ["Stay alice", "Switch to bob"],
    },
    async (at) => {
      await connected(page);
      assert.equal(await page.textContent("#user"), "alice");
      assert.ok(!page.url().includes("token"));
      // The terminal has the keyboard, without a click.
      await page.locator(".xterm-helper-textarea:focus").waitFor();
      await types(page, `stayed${at}`);
    },
  );
  await page.locator("#user", { hasText: "bob" }).waitFor();
  await connected(page);
  const bobs = { Authorization: "Bearer bobs-very-long-token" };
  const opened = await (await fetch(`http://${bench.server.http}/api/v1/sessions`, { headers: bobs })).json();
  await page.context().close();
  for (const { sessionId } of opened.sessions) await fetch(`http://${bench.server.http}/api/v1/sessions/${sessionId}`, { method: "DELETE", headers: bobs });
  await api("DELETE", `sessions/${id}`);
});

test("cancelling a batch is asked for", async () => {
  const page = await open(`${bench.server.page}#token=${token}`);
  await connected(page);
  const { id } = await api("POST", "batches", { name: "long", steps: [{ command: "sleep 600" }] });
  await page.goto("about:blank");
  await page.goto(`${bench.server.page}#batch=${id}`);
  await page.locator("#batch-state", { hasText: "running" }).waitFor();
  await isHarmless(
    page,
    () => page.click("#cancel-batch"),
    {
      title: "Cancel this batch?",
      says: ["Running steps are stopped, and steps that wait are not run."],
      buttons: ["Keep running", "Cancel batch"],
    },
    async () => assert.equal((await api("GET", `batches/${id}`)).state, "running"),
  );
  await page.locator("#batch-state", { hasText: "cancelled" }).waitFor();
  // What was cancelled did not fail.
  const widths = await page.locator("#batch-bar .bar span").evaluateAll((parts) => Object.fromEntries(parts.map((part) => [part.className, part.style.width])));
  assert.deepEqual([widths.bad, widths.left], ["0%", "100%"]);
  await page.context().close();
});

test("Escape leaves a form, and nothing is done", async () => {
  const { page, id } = await openSession("escapes");
  const entry = (name) => async () => {
    await page.click("#more button");
    await page.locator(".menu:popover-open").getByText(name).click();
  };
  const state = async () => {
    const { name } = await api("GET", `sessions/${id}`);
    return { name, sessions: (await sessions()).length, saved: (await api("GET", "saved-sessions")).savedSessions.length, shares: (await api("GET", `sessions/${id}/shares`)).shares.length };
  };
  const before = await state();
  const settings = await page.evaluate(() => localStorage.getItem("splengine-settings"));
  const forms = [
    ["New session", () => page.click("#new"), ["Cancel", "Start session"]],
    ["Save session", () => page.click("#save"), ["Cancel", "Save"]],
    ["Rename session", entry("Rename…"), ["Cancel", "Rename"]],
    ["Share session", () => page.click("#share"), ["Create link", "Close"]],
    ["Settings", entry("Settings…"), ["Cancel", "Save"]],
    ["Keyboard shortcuts", entry("Keyboard shortcuts"), ["Close"]],
  ];
  for (const [at, [title, ask, buttons]] of forms.entries()) {
    await ask();
    const dialog = page.getByRole("dialog", { name: title, exact: true });
    await dialog.waitFor();
    assert.deepEqual(await dialog.getByRole("button").allTextContents(), buttons, title);
    await page.keyboard.type("77");
    await page.keyboard.press("Escape");
    await asksNoMore(page);
    await types(page, `left${at}`);
    assert.deepEqual(await state(), before, title);
  }
  assert.equal(await page.evaluate(() => localStorage.getItem("splengine-settings")), settings);
  await close({ page, id });
});

test("log out asks nothing, for all goes on, and says so to who logs in again", async () => {
  const { page, id } = await openSession("goes on");
  await type(page, "clear; echo wor''king; sleep 600\n");
  await shows(page, "working");
  await page.getByRole("button", { name: "Log out", exact: true }).click();
  await page.locator("#login").waitFor();
  await shot(page, "log-out");
  assert.equal(await page.locator("dialog").count(), 0);
  assert.ok(!(await page.locator("body").innerText()).includes("working"), "nothing is left to be read");
  assert.equal((await api("GET", `sessions/${id}`)).state, "running");
  await page.locator("#token:focus").waitFor();
  await page.keyboard.type(`${token}\n`);
  await connected(page);
  await page.locator("#sessions .open", { hasText: "goes on" }).click();
  await shows(page, "working");
  await close({ page, id });
});

test("Ctrl Shift C without a selection does nothing: neither here nor in the browser", async () => {
  const { page, id } = await openSession("copies", { permissions: ["clipboard-read", "clipboard-write"] });
  const clipboard = () => page.evaluate(() => navigator.clipboard.readText());
  await page.evaluate(() => navigator.clipboard.writeText("before"));
  // Each key that comes, and whether the browser is kept from what it would do.
  await page.evaluate(() => {
    window.keys = [];
    addEventListener("keydown", (event) => setTimeout(() => window.keys.push([event.key, event.defaultPrevented])), { capture: true });
  });
  await type(page, "cat -v\n");
  await page.keyboard.press("Control+Shift+KeyC");
  await page.waitForFunction(() => window.keys.some(([key]) => key === "C"));
  assert.deepEqual(await page.evaluate(() => window.keys.find(([key]) => key === "C")), ["C", true]);
  // The program got nothing of it, and runs.
  await page.keyboard.type("still here\n");
  await page.waitForFunction(() => window.splengine.terminalText().split("\n").filter((line) => line === "still here").length === 2);
  assert.equal(await clipboard(), "before");
  assert.equal(await page.locator("#toast.shown").count(), 0);
  // With one, it copies.
  const { x, y, wide, high } = await page.evaluate(() => {
    const { x, y, width, height } = document.querySelector(".xterm-screen").getBoundingClientRect();
    const { cols, rows } = window.splengine.size();
    return { x, y, wide: width / cols, high: height / rows };
  });
  const row = (await page.evaluate(() => window.splengine.terminalText())).split("\n").indexOf("still here");
  await page.mouse.dblclick(x + 2 * wide, y + (row + 0.5) * high);
  await page.keyboard.press("Control+Shift+KeyC");
  await page.waitForFunction(() => navigator.clipboard.readText().then((text) => text === "still"));
  await close({ page, id });
});

test("nothing went elsewhere, and nothing complained", () => {
  assert.deepEqual(problems, []);
});
