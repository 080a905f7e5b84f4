// A server, a browser, and what the tests do with them.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before } from "node:test";

import { chromium } from "playwright-core";

const program = process.env.SPLENGINE_CHROMIUM ?? "/usr/bin/chromium";
const shots = process.env.SPLENGINE_SHOTS;
export const root = mkdtempSync(join(tmpdir(), "splengine-console-"));
mkdirSync(join(root, "data"));
// Shells read this, and no file of the user who runs the tests.
writeFileSync(join(root, ".bashrc"), "PS1='\\w# '\n");
const config = join(root, "server.toml");
writeFileSync(config, '[users."*"]\nscopes = ["execute", "sessions", "watch", "files"]\n[users.watcher]\nscopes = ["watch"]\n[users.runner]\nscopes = ["execute"]\n[users.filer]\nscopes = ["files"]\n');

export const token = "alices-very-long-token";
const tokens = ["alice=alices", "bob=bobs", "watcher=watchers", "runner=runners", "filer=filers"].map((one) => `${one}-very-long-token`);
/** What the server logs. */
export const log = [];

export async function start(ws = "127.0.0.1:0") {
  const child = spawn(
    process.env.SPLENGINE_SERVER,
    ["--root", root, "--http", "127.0.0.1:0", "--ws", ws, "--avro", "off", "--ssh", "off", "--token", tokens.join(","), "--config", config, "--shell", "/bin/bash", "--grace", "1"],
    { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, HOME: root, RUST_LOG: "error,splengine_ws=warn" } },
  );
  createInterface({ input: child.stderr }).on("line", (line) => {
    log.push(line);
    if (/ERROR|panicked/.test(line)) console.error(line);
  });
  const [line] = await once(createInterface({ input: child.stdout }), "line");
  const ready = JSON.parse(line);
  return { child, ...ready, page: `http://${ready.ws}/` };
}

export async function stop({ child }, signal = "SIGTERM") {
  child.kill(signal);
  await once(child, "exit");
}

/** The server that runs now, and the browser. */
export const bench = { server: null, browser: null };
export const problems = [];

before(async () => {
  bench.server = await start();
  bench.browser = await chromium.launch({ executablePath: program, args: ["--no-sandbox", "--enable-unsafe-swiftshader"] });
});

after(async () => {
  await bench.browser?.close();
  if (bench.server?.child.exitCode === null) await stop(bench.server);
  rmSync(root, { recursive: true, force: true });
});

/**
 * A page of a browser of its own, which goes nowhere else and complains of nothing. Unless `webgl`
 * says otherwise, it draws with elements, which tests can look at. `timersLate`: by how many
 * milliseconds its timers come late, as they do on a slow device. `before` runs before the page's own.
 */
export async function open(url, { webgl = false, timersLate = 0, before, ...options } = {}) {
  const context = await bench.browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  if (!webgl) {
    await context.addInitScript(() => {
      try {
        localStorage.getItem("splengine-settings") ?? localStorage.setItem("splengine-settings", '{"renderer":"dom"}');
      } catch {
        // A page that is nowhere keeps nothing.
      }
    });
  }
  if (before) await context.addInitScript(before);
  if (timersLate > 0) {
    await context.addInitScript((late) => {
      const set = window.setTimeout;
      window.setTimeout = (act, after = 0, ...more) => set(act, after + late, ...more);
    }, timersLate);
  }
  const page = await context.newPage();
  const host = new URL(url).host;
  page.on("request", (request) => {
    const to = new URL(request.url());
    if (to.host !== host && to.protocol !== "data:") problems.push(`a request to ${to.host}`);
  });
  page.on("pageerror", (error) => problems.push(`an exception: ${error.message}`));
  page.on("console", (message) => {
    const text = message.text();
    // A connection that breaks and a login that fails are told by the browser as well.
    if (message.type() === "error" && !/WebSocket connection|status of (40[01349]|422)|ERR_(CONNECTION|EMPTY_RESPONSE|SOCKET_NOT_CONNECTED)/.test(text)) problems.push(text);
  });
  await page.goto(url);
  return page;
}

export const text = (page) => page.evaluate(() => window.splengine.terminalText());

export async function shows(page, needle) {
  await page.waitForFunction(
    (wanted) => window.splengine?.terminalText().includes(wanted),
    needle,
    { timeout: 30_000 },
  ).catch(async () => assert.fail(`${needle} is not shown, but:\n${await text(page)}`));
}

/** Waits until the needle is drawn as an element, which comes a moment after the terminal knows of it. */
export async function draws(page, needle) {
  await page.locator(".xterm-rows > div", { hasText: needle }).first().waitFor();
}

/** Waits until the dialog is there that the keys to come are for. */
export async function asks(page) {
  await page.locator("dialog[open]").waitFor();
}

/** Waits until the dialog that was there is gone, and the keyboard is where it was before. */
export async function asksNoMore(page) {
  await page.locator("dialog").waitFor({ state: "detached" });
}

/** Waits until `find` gives something that is no undefined; what it is. */
export async function until(find, what) {
  const end = Date.now() + 30_000;
  for (;;) {
    const found = await find();
    if (found !== undefined) return found;
    assert.ok(Date.now() < end, `not within 30 s: ${what}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

export async function type(page, keys) {
  await page.locator(".xterm-helper-textarea").focus();
  await page.keyboard.type(keys);
}

export async function shot(page, name) {
  if (shots) await page.screenshot({ path: join(shots, `${name}.png`) });
}

/** Asks the server's API as alice. */
export async function api(method, path, body) {
  const response = await fetch(`http://${bench.server.http}/api/v1/${path}`, {
    method,
    headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
    ...(body && { body: JSON.stringify(body) }),
  });
  const answer = await response.text();
  return answer === "" ? null : JSON.parse(answer);
}

export const sessions = async () => (await api("GET", "sessions")).sessions;

/** A page on a new session of its own. */
export async function openSession(name, options = {}) {
  const made = await api("POST", "sessions", { name });
  const page = await open(`${bench.server.page}#token=${token}`, options);
  await connected(page);
  await page.goto("about:blank");
  await page.goto(`${bench.server.page}#session=${made.sessionId}`);
  await connected(page);
  await shows(page, "#");
  return { page, id: made.sessionId };
}

/** Ends a session and its page. */
export async function close({ page, id }) {
  await page.context().close();
  await api("DELETE", `sessions/${id}`);
}

export async function connected(page) {
  await page.locator('#status[data-state="open"]').waitFor({ timeout: 30_000 });
}

/** A way to the server that can be broken; gives its address, and what breaks and mends it. */
export async function breakable(context) {
  const target = new URL(bench.server.page);
  const pipes = new Set();
  let refuses = false;
  const between = net.createServer((socket) => {
    if (refuses) return socket.destroy();
    const onward = net.connect(Number(target.port), target.hostname);
    for (const one of [socket, onward]) {
      pipes.add(one);
      one.on("error", () => null);
      one.on("close", () => pipes.delete(one));
    }
    socket.pipe(onward).pipe(socket);
  });
  const cut = () => {
    for (const one of pipes) one.destroy();
  };
  await new Promise((done) => between.listen(0, "127.0.0.1", done));
  context.after(() => {
    cut();
    between.close();
  });
  return {
    address: `http://127.0.0.1:${between.address().port}/`,
    cut,
    refuse: () => {
      refuses = true;
      cut();
    },
    accept: () => (refuses = false),
  };
}

/** What is seen in that part of the page: `pixel` gives red, green and blue. */
export async function picture(page, clip) {
  const png = (await page.screenshot({ clip })).toString("base64");
  const { width, height, data } = await page.evaluate(async (png) => {
    const image = new Image();
    image.src = `data:image/png;base64,${png}`;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.width, image.height];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, image.width, image.height);
    let text = "";
    for (let at = 0; at < data.length; at += 0x8000) text += String.fromCharCode(...data.subarray(at, at + 0x8000));
    return { width: image.width, height: image.height, data: btoa(text) };
  }, png);
  const bytes = Buffer.from(data, "base64");
  const pixel = (x, y) => [...bytes.subarray((y * width + x) * 4, (y * width + x) * 4 + 3)];
  return { width, height, pixel };
}

/** A proxy below `/x/y`, which may change what headers say; gives its address. */
export async function proxy(context, change = (headers) => headers) {
  const target = new URL(bench.server.page);
  const between = http.createServer((request, response) => {
    const path = request.url.replace(/^\/x\/y/, "") || "/";
    const headers = change({ ...request.headers });
    const onward = http.request({ host: target.hostname, port: target.port, path, method: request.method, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    request.pipe(onward);
  });
  between.on("upgrade", (request, socket, head) => {
    const onward = net.connect(Number(target.port), target.hostname, () => {
      const lines = Object.entries(change({ ...request.headers })).map(([name, value]) => `${name}: ${value}`);
      onward.write(`GET ${request.url.replace(/^\/x\/y/, "")} HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n`);
      onward.write(head);
      socket.pipe(onward).pipe(socket);
    });
    onward.on("error", () => socket.destroy());
    socket.on("error", () => onward.destroy());
  });
  await new Promise((done) => between.listen(0, "127.0.0.1", done));
  context.after(() => {
    between.close();
    between.closeAllConnections();
  });
  return `http://127.0.0.1:${between.address().port}/x/y/`;
}
