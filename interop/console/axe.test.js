// Who can't see well, or uses no mouse, is not shut out: axe-core at three sizes, in both themes.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { test } from "node:test";

import { bench, close, open, openSession, problems, shot, until } from "./support.js";

const require = createRequire(import.meta.url);

/** Looks for what shuts people out, in what the page shows then, and takes a picture of it. */
async function axe(page, name) {
  // The page lets no script in by the usual way.
  const session = await page.context().newCDPSession(page);
  await session.send("Runtime.evaluate", { expression: readFileSync(require.resolve("axe-core/axe.min.js"), "utf8") });
  return async (what) => {
    await page.waitForFunction(() => document.getAnimations().every((one) => one.playState !== "running" || one.effect?.getTiming().iterations === Infinity));
    const found = await page.evaluate(() =>
      window.axe.run(document, { resultTypes: ["violations"], runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
    const told = found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => `${node.target} ${node.any[0]?.message ?? ""}`).join("; ")}`);
    assert.deepEqual(told, [], what);
    await shot(page, `axe-${what}-${name}`);
  };
}

for (const [size, options] of [
  ["phone", { viewport: { width: 390, height: 780 }, hasTouch: true, isMobile: true }],
  ["laptop", { viewport: { width: 1280, height: 760 } }],
  ["wide", { viewport: { width: 1920, height: 1000 } }],
]) {
  for (const colorScheme of ["dark", "light"]) {
    test(`nobody is shut out: ${size}, ${colorScheme}`, async () => {
      const { page, id } = await openSession(`axe ${size}`, { ...options, colorScheme });
      const check = await axe(page, `${size}-${colorScheme}`);
      await check("terminal");
      await page.keyboard.press("Control+Shift+F");
      await page.locator("#search").waitFor();
      await check("find");
      await page.keyboard.press("Escape");
      await page.click("#more button");
      await check("menu");
      await page.click(".menu:popover-open >> text=Settings…");
      await check("settings");
      await page.keyboard.press("Escape");
      if (size !== "phone") {
        await page.click("#share");
        await page.click("text=Create link");
        await page.locator("dialog .shares li").waitFor();
        await check("share");
        await page.keyboard.press("Escape");
      }
      await page.click("#tab-batches");
      await page.locator("#no-batches, #batch-list li").first().waitFor();
      await check("batches");
      await page.click("#new-batch");
      await check("new batch");
      await page.getByLabel("Commands").fill("echo \"seen\"\nfalse");
      await page.getByRole("button", { name: "Run batch" }).click();
      await page.locator("#batch-state", { hasText: "failed" }).waitFor();
      await page.locator("#steps .open").first().click();
      await page.locator("#step-stdout").getByText("seen").waitFor();
      await check("batch");
      await page.click("#tab-terminal");
      if (size === "phone") {
        await page.click("#menu");
        await page.locator("#sessions .open").first().waitFor();
        await check("list");
        await page.click("#shade", { position: { x: 370, y: 400 } });
      }
      await close({ page, id });
    });
  }
}

test("the login form says where a token comes from, in the system's theme", async () => {
  const page = await open(bench.server.page);
  await page.locator("#login", { hasText: "administrator" }).waitFor();
  const colour = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  for (const [colorScheme, wanted] of [["dark", "rgb(11, 14, 18)"], ["light", "rgb(238, 241, 244)"], ["dark", "rgb(11, 14, 18)"]]) {
    await page.emulateMedia({ colorScheme });
    await until(async () => (await colour()) === wanted || undefined, `the login form in the ${colorScheme} theme`);
    await (await axe(page, colorScheme))("login");
  }
  await page.context().close();
});

test("nothing went elsewhere, and nothing complained", () => {
  assert.deepEqual(problems, []);
});
