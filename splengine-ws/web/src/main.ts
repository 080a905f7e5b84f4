// The console, put together.

import { api, type Me } from "./api.js";
import { Connection, type Target } from "./connection.js";
import { dialog, say } from "./dialogs.js";
import { find, make } from "./dom.js";
import { logIn } from "./login.js";
import { People } from "./people.js";
import type { ServerFrame } from "./protocol.js";
import { nameOf, SessionList } from "./sessions.js";
import { Screen } from "./terminal.js";
import { apply, toggleTheme } from "./theme.js";
import { touchKeys } from "./touch.js";
import { register } from "./views.js";

class Console {
  #me: Me;
  #connection: Connection | null = null;
  #screen: Screen;
  #people: People;
  #list: SessionList;
  #session: Extract<ServerFrame, { type: "session" }> | null = null;
  #inControl = false;
  #room: { cols: number; rows: number } | null = null;

  constructor(me: Me) {
    this.#me = me;
    this.#people = new People({ send: (frame) => this.#connection?.send(frame) });
    const viaTouch = touchKeys((text) => this.#screen.type(text));
    this.#screen = new Screen(find("terminal"), {
      input: (data) => this.#connection?.input(viaTouch(data)),
      ack: (offset) => this.#connection?.ack(offset),
      room: (cols, rows) => this.#fits(cols, rows),
      isShortcut: (event) => event.type === "keydown" && this.#shortcut(event),
    });
    this.#list = new SessionList({
      open: (target) => this.open(target),
      current: () => this.#session?.sessionId ?? null,
      left: () => this.#forget(),
    });
    Object.assign(window, { splengine: { terminalText: () => this.#screen.text() } });
    this.#wire();
  }

  async start(): Promise<void> {
    document.body.classList.toggle("guest", this.#me.guest !== null);
    find("user").textContent = this.#me.user;
    if (this.#me.guest) {
      const { sessionId, access } = this.#me.guest;
      return this.open({ kind: "attach", sessionId, access });
    }
    await this.#list.refresh();
    const wanted = new URLSearchParams(location.hash.slice(1)).get("session");
    const running = this.#list.sessions.filter((session) => session.state === "running");
    const chosen = running.find((session) => session.sessionId === wanted) ?? running[0];
    this.open(chosen ? { kind: "attach", sessionId: chosen.sessionId } : { kind: "new", request: {} });
  }

  open(target: Target): void {
    this.#connection?.stop();
    this.#session = null;
    this.#screen.term.reset();
    this.#screen.rights(false, false);
    this.#people.clients = [];
    find("sidebar").classList.remove("open");
    const connection = new Connection(target, {
      frame: (frame) => this.#frame(frame),
      bytes: (frame) => this.#screen.bytes(frame),
      state: (state, reason, code) => this.#state(state, reason, code),
    });
    this.#connection = connection;
    this.#screen.layout();
    if (this.#room) connection.resize(this.#room.cols, this.#room.rows);
    connection.start();
    this.#screen.term.focus();
  }

  #frame(frame: ServerFrame): void {
    switch (frame.type) {
      case "session": {
        this.#session = frame;
        history.replaceState(null, "", `#session=${encodeURIComponent(frame.sessionId)}`);
        this.#screen.size(frame.cols, frame.rows);
        this.#rights();
        this.#title(frame.title);
        if (!this.#me.guest) void this.#list.refresh();
        break;
      }
      case "size":
        this.#screen.size(frame.cols, frame.rows);
        break;
      case "title":
        this.#title(frame.title);
        break;
      case "presence":
        this.#people.clients = frame.clients;
        break;
      case "control":
        this.#inControl = frame.you;
        this.#people.holder = frame.holder;
        this.#rights();
        break;
      case "exit":
        this.#banner(frame.signal ? `The program was ended by ${frame.signal}.` : `The program has ended with exit code ${frame.exitCode}.`);
        break;
      case "notice":
        this.#notice(frame);
        break;
      case "error":
        say(frame.error, "error");
        break;
    }
  }

  #notice(frame: Extract<ServerFrame, { type: "notice" }>): void {
    const words: Record<string, string> = {
      idle_warning: `This session ends in ${frame.seconds ?? "a few"} seconds unless something happens in it.`,
      recording_stopped: frame.reason === "limit"
        ? "The recording is as long as it may get and has stopped. The session goes on."
        : "The recording has stopped: it can't be written. The session goes on.",
      restart: "The server is restarting.",
      read_only: "You may only look on here.",
      culled: "The session was idle or old and has been ended.",
      revoked: "The link that let you in was taken back or has expired.",
    };
    const text = words[frame.kind];
    if (text) say(text, frame.kind === "idle_warning" ? "error" : "info");
  }

  #state(state: string, reason: string, code: number): void {
    const status = find("status");
    status.dataset.state = state;
    status.textContent = { connecting: "connecting…", open: "connected", again: "reconnecting…", login: "logged out", over: "closed" }[state] ?? state;
    if (state === "open") this.#banner("");
    if (state === "again") this.#banner("The connection broke. Trying again…", () => this.#connection?.hurry(), "Now");
    if (state === "login") location.reload();
    if (state !== "over") return;
    this.#screen.rights(false, false);
    const text = {
      1000: find("banner-text").textContent || "The session has ended.",
      4403: "You may not use this session any more.",
      4404: "This session is not there any more.",
      4408: "The session was idle or old and has been ended.",
      4429: "There are too many sessions or clients. End one first.",
    }[code] ?? `The server closed the connection${reason ? `: ${reason}` : ""}.`;
    if (this.#me.guest) this.#banner(text);
    else this.#banner(text, () => this.open({ kind: "new", request: {} }), "New session");
    if (!this.#me.guest) void this.#list.refresh();
  }

  #forget(): void {
    this.#connection?.stop();
    this.#session = null;
    this.#screen.rights(false, false);
    this.#banner("The session has ended.", () => this.open({ kind: "new", request: {} }), "New session");
  }

  #banner(text: string, act?: () => void, label?: string): void {
    find("banner").hidden = text === "";
    find("banner-text").textContent = text;
    const button = find<HTMLButtonElement>("banner-button");
    button.hidden = !act;
    button.textContent = label ?? "";
    button.onclick = act ?? null;
  }

  #rights(): void {
    const canType = this.#session?.access === "control";
    this.#screen.rights(canType, this.#inControl);
    const badge = find("access");
    badge.hidden = canType || this.#session === null;
    badge.textContent = "looking on";
  }

  #fits(cols: number, rows: number): void {
    if (this.#room?.cols === cols && this.#room.rows === rows) return;
    this.#room = { cols, rows };
    this.#connection?.resize(cols, rows);
  }

  #title(title: string): void {
    const session = this.#session;
    if (!session) return;
    session.title = title;
    const name = nameOf(session);
    find("title").textContent = name;
    document.title = `${name} · splengine`;
  }

  #shortcut(event: KeyboardEvent): boolean {
    if (!event.ctrlKey || !event.shiftKey || event.altKey || event.metaKey) return false;
    const act = {
      KeyF: () => this.#find(true),
      KeyL: () => this.#showList(),
      KeyY: () => void this.#list.create(),
      KeyH: () => void help(),
      KeyE: () => toggleTheme(),
    }[event.code];
    if (!act || (this.#me.guest && ["KeyL", "KeyY"].includes(event.code))) return false;
    event.preventDefault();
    act();
    return true;
  }

  #showList(): void {
    find("sidebar").classList.add("open");
    document.querySelector<HTMLElement>("#sessions button")?.focus();
  }

  #find(shown: boolean): void {
    find("search").hidden = !shown;
    if (shown) find<HTMLInputElement>("search-text").focus();
    else {
      this.#screen.search.clearDecorations();
      this.#screen.term.focus();
    }
  }

  #wire(): void {
    document.addEventListener("keydown", (event) => {
      if (!event.defaultPrevented) this.#shortcut(event);
    });
    const text = find<HTMLInputElement>("search-text");
    const next = (back: boolean) =>
      back ? this.#screen.search.findPrevious(text.value) : this.#screen.search.findNext(text.value);
    text.addEventListener("input", () => next(false));
    text.addEventListener("keydown", (event) => {
      if (event.key === "Enter") next(event.shiftKey);
      if (event.key === "Escape") this.#find(false);
    });
    find("search-close").addEventListener("click", () => this.#find(false));
    find("find").addEventListener("click", () => this.#find(true));
    find("theme").addEventListener("click", toggleTheme);
    find("help").addEventListener("click", () => void help());
    find("menu").addEventListener("click", () => find("sidebar").classList.toggle("open"));
    find("logout").addEventListener("click", async () => {
      await api.logout().catch(() => null);
      this.#connection?.stop();
      location.hash = "";
      location.reload();
    });
    const current = (act: (id: string) => unknown) => () => {
      if (this.#session) act(this.#session.sessionId);
    };
    find("save").addEventListener("click", current((id) => this.#list.save(id)));
    find("share").addEventListener("click", current((id) => this.#list.share(id)));
    find("end").addEventListener("click", current((id) => this.#list.end(id)));
    addEventListener("online", () => this.#connection?.hurry());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.#connection?.hurry();
    });
  }
}

async function help(): Promise<void> {
  const keys: [string, string][] = [
    ["Ctrl Shift F", "find in the terminal"],
    ["Ctrl Shift L", "the list of sessions"],
    ["Ctrl Shift Y", "a new session"],
    ["Ctrl Shift E", "dark or light"],
    ["Ctrl Shift H", "this help"],
    ["Shift Insert", "paste"],
  ];
  const rows = keys.map(([key, what]) => make("tr", {}, make("td", {}, make("kbd", {}, key)), make("td", {}, what)));
  await dialog(
    "Keys",
    [
      make("table", { class: "keys-help" }, ...rows),
      make("p", { class: "hint" }, "All other keys go to the terminal. Closing this page leaves its program running: come back from any browser."),
    ],
    null,
    () => null,
  );
}

async function main(): Promise<void> {
  apply();
  if (typeof Terminal === "undefined") {
    find("login-problem").textContent = "The terminal could not be loaded. Is the network of its parts reachable?";
    find("login").hidden = false;
    return;
  }
  register({ id: "terminal", label: "Terminal", element: find("terminal-view") });
  const me = await logIn();
  find("app").hidden = false;
  await new Console(me).start();
}

void main();
