// The picture of the console that the README shows, made anew by SPLENGINE_README=1 node --test readme.test.js.

import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { api, bench, close, connected, draws, open, openSession, problems, root, shows, token, type } from "./support.js";

const PICTURE = new URL("../../docs/console.png", import.meta.url);
const MAX_BYTES = 150_000;

const REPORT = `#!/bin/bash
# What comes in while it is looked at.
paint() { printf '\\e[%sm%s\\e[m' "$1" "$2"; }
bar() { printf '  %-11s ' "$1"; for ((i = 0; i < 28; i++)); do ((i < $2)) && paint "$3" '█' || paint 90 '░'; done; printf ' %5s\\n' "$4"; }
paint '1;36' 'Readings of the night'; printf '   %s\\n\\n' "$(paint 90 '4 stations, 1,284 files')"
bar north 26 32 '93 %'; bar 'east, hill' 19 32 '68 %'; bar harbour 11 33 '39 %'; bar 'old mill' 3 31 '11 %'
printf '\\n  %s checked   %s late   %s broken\\n\\n' "$(paint 32 '✓ 1,197')" "$(paint 33 '● 84')" "$(paint 31 '✗ 3')"
`;

test("two sessions, and what is beside a terminal", async () => {
  for (const name of ["north", "east", "harbour", "mill"]) mkdirSync(join(root, "data", name), { recursive: true });
  writeFileSync(join(root, "data", "stations.csv"), "north\n");
  writeFileSync(join(root, "report"), REPORT, { mode: 0o755 });
  const other = await api("POST", "sessions", { name: "nightly import" });
  const options = { colorScheme: "dark", deviceScaleFactor: 2, viewport: { width: 960, height: 500 } };
  const { page, id } = await openSession("readings", options);
  // Somebody else looks on, by a link.
  const { ticket } = await api("POST", `sessions/${id}/shares`, { access: "view" });
  const guest = await open(`${bench.server.page}#ticket=${ticket}`);
  await connected(guest);
  await page.locator("#people li").nth(1).waitFor();

  await type(page, "PS1='\\[\\e[1;34m\\]\\w\\[\\e[m\\] \\$ '; clear\n");
  await type(page, "./report\n");
  await shows(page, "✗ 3 broken");
  await type(page, "ls --color=always -x data\n");
  await draws(page, "stations.csv");
  await page.locator("#sessions li").nth(1).waitFor();
  await page.locator("#sessions li", { hasText: "nightly import" }).waitFor();
  // What is drawn follows what is known a moment later: two pictures that are the same show all of it.
  let [last, picture] = [null, null];
  for (let tries = 0; tries < 50 && (last === null || !last.equals(picture)); tries += 1) {
    [last, picture] = [picture, await page.screenshot({ caret: "hide" })];
    await page.waitForTimeout(100);
  }
  assert.ok(picture.length < MAX_BYTES, `${picture.length} bytes are too many for a page`);
  if (process.env.SPLENGINE_README) writeFileSync(PICTURE, picture);
  await guest.context().close();
  await close({ page, id });
  await api("DELETE", `sessions/${other.sessionId}`);
});

test("nothing went elsewhere, and nothing complained", () => {
  assert.deepEqual(problems, []);
});
