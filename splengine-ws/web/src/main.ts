// The console, put together.

import { parsePlace, setSession, writeAddress } from "./address.js";
import { api, type Me } from "./api.js";
import { Batches } from "./batches.js";
import { copy } from "./clipboard.js";
import { Connection, type Target } from "./connection.js";
import { say } from "./dialogs.js";
import { find, make } from "./dom.js";
import { help } from "./help.js";
import { logIn } from "./login.js";
import { type Entry, menuOf } from "./menu.js";
import { People } from "./people.js";
import { preferences } from "./preferences.js";
import { programCopies } from "./program_copy.js";
import type { ServerFrame } from "./protocol.js";
import { FindBar } from "./search.js";
import { askLists, type Lists, nameOf, SessionList } from "./sessions.js";
import { Screen } from "./terminal.js";
import { begin, onThemeChange, terminalColors, theme, toggleTheme } from "./theme.js";
import { touchKeys } from "./touch.js";
import { focusView, isShown, register, show } from "./views.js";
import { closeText, noticeText, noViewText, REVOKED, sentence, statusText } from "./words.js";

interface Offer {
  label: string;
  act(): void;
}

class Console {
  #me: Me;
  #connection: Connection | null = null;
  #screen: Screen;
  #people: People;
  #list: SessionList;
  #findBar: FindBar;
  #session: Extract<ServerFrame, { type: "session" }> | null = null;
  #inControl = false;
  #clients = 0;
  /** When the size of this window was last asked for, in milliseconds. */
  #taken = 0;
  #room: { cols: number; rows: number } | null = null;
  /** What the server said last that is wrong. */
  #problem = "";
  /** The program of the session has ended by itself, with nothing wrong. */
  #isDone = false;
  /** The connection was closed for good. */
  #isOver = false;
  #patience: ReturnType<typeof setTimeout> | undefined;

  constructor(me: Me) {
    this.#me = me;
    this.#people = new People({ send: (frame) => this.#connection?.send(frame) });
    const viaTouch = touchKeys(
      (text) => this.#screen.type(text),
      () => this.#screen.term.modes.applicationCursorKeysMode,
    );
    this.#screen = new Screen(find("terminal"), {
      input: (data, byHand) => {
        if (byHand) this.#takeSize();
        const typed = this.#connection?.input(viaTouch(data)) ?? true;
        if (!typed) say("That was not typed: too much input is waiting for the server.", "error");
      },
      ack: (offset) => this.#connection?.ack(offset),
      room: (cols, rows) => this.#fits(cols, rows),
      isShortcut: (event) => event.type === "keydown" && this.#shortcut(event),
      refused: () => {
        if (this.#session?.access === "view") say("This is view only: what you type is not sent.");
      },
      undroppable: () => say("Files can't be dropped here. Use SFTP, scp or the HTTP API to upload.", "error"),
      copied: (text) => {
        // Of several who see the same output, it is for the one who works in it.
        if (this.#inControl && !document.hidden) programCopies(text);
      },
    });
    this.#findBar = new FindBar(this.#screen);
    this.#list = new SessionList({
      open: (target) => this.open(target),
      current: () => this.#session?.sessionId ?? null,
      mayType: () => this.#owns(),
      mayList: () => !this.isGuest || !this.#isOver,
      room: () => this.#room,
      left: () => this.#forget(),
      listed: () => this.#named(),
    });
    Object.assign(window, { splengine: { terminalText: () => this.#screen.text(), size: () => ({ cols: this.#screen.term.cols, rows: this.#screen.term.rows }) } });
    this.#wire();
  }

  get isGuest(): boolean {
    return this.#me.guest !== null;
  }

  focus(): void {
    this.#screen.term.focus();
  }

  /** `asked`: the lists, if they were asked for already. */
  async start(asked?: Lists): Promise<void> {
    document.body.classList.toggle("guest", this.isGuest);
    find("user").textContent = this.#me.user;
    find("new").hidden = !this.#owns();
    if (this.#me.guest) {
      const { sessionId, access } = this.#me.guest;
      return this.#open({ kind: "attach", sessionId, access });
    }
    const place = parsePlace(location.hash);
    const problem = await this.#list.refresh(asked);
    if (problem !== "") return this.#banner(problem, { label: "Try again", act: () => void this.start() });
    const wanted = place?.view === "terminal" ? place.session : null;
    const found = this.#list.sessions.find((session) => session.sessionId === wanted);
    const kept = wanted && (!found || found.state === "lost") ? this.#list.kept(wanted) : null;
    if (kept) return this.#offer(kept);
    // Another one is not typed into by mistake.
    if (wanted && !found) return this.#nothing("The session of this address no longer exists.");
    const chosen = found ?? this.#list.sessions.find((session) => session.state === "running");
    // Whoever has turned to another view meanwhile stays there.
    if (chosen) this.#open(this.#attach(chosen.sessionId));
    else if (this.#owns()) this.#open({ kind: "new", request: {} });
    else this.#nothing("You may watch sessions here. No session is running.");
  }

  open(target: Target): void {
    show("terminal");
    this.#open(target);
  }

  /** Whether the user may do more with sessions than look. */
  #owns(): boolean {
    return !this.isGuest && this.#me.scopes.includes("sessions");
  }

  #attach(sessionId: string): Target {
    return { kind: "attach", sessionId, ...(!this.#owns() && { access: "view" }) };
  }

  #open(asked: Target): void {
    const target = asked.kind === "attach" && !this.isGuest ? this.#attach(asked.sessionId) : asked;
    this.#connection?.stop();
    this.#session = null;
    this.#inControl = false;
    this.#clients = 0;
    this.#problem = "";
    this.#isDone = false;
    this.#calm();
    this.#banner("");
    find("nothing").hidden = true;
    find("prompt").hidden = true;
    find("terminal").hidden = false;
    this.#screen.clear();
    this.#rights();
    this.#people.clients = [];
    find("sidebar").classList.remove("open");
    const connection = new Connection(target, {
      frame: (frame) => this.#frame(frame),
      bytes: (frame) => this.#screen.bytes(frame),
      untyped: () => say("What was typed while the connection was broken was lost.", "error"),
      state: (state, reason, code) => this.#state(state, reason, code),
    });
    this.#connection = connection;
    this.#screen.layout();
    if (this.#room) connection.resize(this.#room.cols, this.#room.rows);
    connection.colors(terminalColors(theme()));
    connection.start();
    if (isShown("terminal")) this.focus();
  }

  /** Says why there is no terminal. */
  #nothing(text: string): void {
    find("terminal").hidden = true;
    find("title").textContent = "splengine";
    const parts: HTMLElement[] = [make("p", {}, text)];
    if (this.#owns()) parts.push(make("button", { type: "button", class: "primary", onclick: () => this.open({ kind: "new", request: {} }) }, "New session"));
    if (this.#list.sessions.length > 0) parts.push(make("p", { class: "hint" }, "Or choose one from the list of sessions."));
    find("nothing").replaceChildren(...parts);
    find("nothing").hidden = false;
    this.#rights();
  }

  #frame(frame: ServerFrame): void {
    switch (frame.type) {
      case "session": {
        this.#session = frame;
        setSession(this.isGuest ? null : frame.sessionId);
        if (isShown("terminal")) writeAddress("terminal");
        this.#screen.size(frame.cols, frame.rows);
        this.#rights();
        this.#title(frame.title);
        if (!this.isGuest) void this.#list.refresh();
        break;
      }
      case "size":
        this.#screen.size(frame.cols, frame.rows);
        break;
      case "title":
        this.#title(frame.title);
        break;
      case "presence":
        this.#clients = frame.clients.length;
        this.#people.clients = frame.clients;
        break;
      case "control":
        this.#inControl = frame.you;
        this.#people.holder = frame.holder;
        this.#rights();
        break;
      case "exit":
        this.#isDone = frame.exitCode === 0 && !frame.signal;
        this.#banner(frame.signal ? `The program was ended by ${frame.signal}.` : `The program has ended with exit code ${frame.exitCode}.`);
        break;
      case "notice":
        this.#notice(frame);
        break;
      case "error":
        // A server that has nothing else for us closes next; then the banner says it.
        if (find("status").dataset.state === "open") say(sentence(frame.error), "error");
        else this.#problem = sentence(frame.error);
        break;
    }
  }

  #notice(frame: Extract<ServerFrame, { type: "notice" }>): void {
    const text = noticeText(frame);
    // It is the last that is heard, and stands for as long as the page does.
    if (frame.kind === "revoked" || frame.kind === "culled") this.#problem = text ?? "";
    else if (text) say(text, frame.kind === "idle_warning" ? "error" : "info");
  }

  #state(state: string, reason: string, code: number): void {
    this.#show(state);
    this.#isOver = state === "over";
    if (state === "open") {
      this.#calm();
      this.#banner("");
      this.#problem = "";
    }
    // A break that is over at once is not worth a word.
    if (state === "again") this.#patience ??= setTimeout(() => this.#waiting(), 1000);
    if (state === "login") location.reload();
    if (state !== "over") return;
    this.#calm();
    this.#screen.rights(false, false);
    this.#people.clients = [];
    const isEnd = code === 1000 && this.#session !== null;
    if (isEnd) this.#show("ended");
    if (this.#session && NO_SESSION.includes(code)) {
      this.#session.state = "exited";
      this.#rights();
    }
    find("status").dataset.done = String(isEnd && this.#isDone);
    const id = this.#session?.sessionId;
    if (code === 4404 && id && !this.isGuest) return void this.#gone(id);
    const said = code === 1000 ? find("banner-text").textContent : code === 4403 && this.isGuest ? this.#problem || REVOKED : this.#problem;
    const text = said && code !== 4404 ? said : closeText(code, reason);
    if (this.#owns()) this.#banner(text, { label: "New session", act: () => this.open({ kind: "new", request: {} }) });
    else this.#banner(text);
    if (!this.isGuest) void this.#list.refresh();
  }

  #show(state: string): void {
    const status = find("status");
    status.dataset.state = state;
    status.textContent = statusText(state);
  }

  #calm(): void {
    clearTimeout(this.#patience);
    this.#patience = undefined;
    find("app").classList.remove("away");
  }

  #waiting(): void {
    find("app").classList.add("away");
    this.#banner("The connection is lost. Trying again…", { label: "Reconnect now", act: () => this.#connection?.hurry() });
  }

  /** The session is not running any more: maybe it can be gone on with. */
  async #gone(id: string): Promise<void> {
    await this.#list.refresh();
    if (this.#session?.sessionId !== id) return;
    const kept = this.#list.kept(id);
    if (kept) this.#offer(kept);
    else this.#banner("This session no longer exists.", { label: "New session", act: () => this.open({ kind: "new", request: {} }) });
  }

  #offer(savedId: string): void {
    this.#banner(
      "This session ended with its server. Its screen and its directory were kept.",
      { label: "Restore session", act: () => this.open({ kind: "load", savedId }) },
      { label: "New session", act: () => this.open({ kind: "new", request: {} }) },
    );
  }

  #forget(): void {
    this.#connection?.stop();
    this.#session = null;
    this.#show("ended");
    this.#rights();
    this.#banner("The session has ended.", { label: "New session", act: () => this.open({ kind: "new", request: {} }) });
  }

  #banner(text: string, ...offers: Offer[]): void {
    find("banner").hidden = text === "";
    find("banner-text").textContent = text;
    for (const [at, id] of ["banner-button", "banner-other"].entries()) {
      const button = find<HTMLButtonElement>(id);
      const offer = offers[at];
      button.hidden = !offer;
      button.textContent = offer?.label ?? "";
      button.onclick = offer ? () => offer.act() : null;
    }
  }

  #rights(): void {
    const session = this.#session;
    const runs = session !== null && session.state === "running";
    const canType = session?.access === "control" && runs;
    this.#screen.rights(canType, this.#inControl && canType);
    const badge = find("access");
    badge.hidden = session === null || session.access === "control";
    badge.textContent = "view only";
    for (const id of ["save", "share", "end"]) find(id).hidden = !runs || !this.#owns();
    find("find").hidden = session === null;
  }

  #fits(cols: number, rows: number): void {
    if (this.#room?.cols === cols && this.#room.rows === rows) return;
    this.#room = { cols, rows };
    this.#connection?.resize(cols, rows);
  }

  /** The size follows whoever types, if more than one is there. */
  #takeSize(): void {
    if (this.#inControl || this.#clients < 2 || this.#session?.access !== "control") return;
    const now = Date.now();
    if (now - this.#taken < TAKE_EVERY) return;
    this.#taken = now;
    this.#connection?.send({ type: "control", op: "take" });
  }

  #title(title: string): void {
    const session = this.#session;
    if (!session) return;
    session.title = title;
    const name = nameOf(session);
    find("title").textContent = name;
    document.title = `${name} · splengine`;
  }

  /** A session may be renamed from elsewhere. */
  #named(): void {
    const session = this.#session;
    const listed = this.#list.sessions.find((one) => one.sessionId === session?.sessionId);
    if (!session || !listed || listed.name === session.name) return;
    session.name = listed.name;
    this.#title(session.title);
  }

  #shortcut(event: KeyboardEvent): boolean {
    if (!event.ctrlKey || !event.shiftKey || event.altKey || event.metaKey) return false;
    if (document.querySelector("dialog[open]")) return false;
    const selected = this.#screen.term.getSelection();
    const act = {
      // Without a selection, too: else a browser opens its tools for developers.
      KeyC: () => void (selected !== "" && this.#copy(selected)),
      KeyF: () => this.#findBar.show(true),
      KeyL: () => this.#showList(true),
      KeyY: () => void this.#list.create(),
      KeyH: () => void help(),
      KeyE: () => toggleTheme(),
    }[event.code as "KeyF"] as (() => void) | undefined;
    if (!isShown("terminal") && !["KeyH", "KeyE"].includes(event.code)) return false;
    if (!act || (["KeyL", "KeyY"].includes(event.code) && (this.isGuest || (event.code === "KeyY" && !this.#owns())))) return false;
    event.preventDefault();
    act();
    return true;
  }

  async #copy(text: string): Promise<void> {
    const done = await copy(text);
    say(done ? "Copied." : "The browser does not let this page copy.", done ? "info" : "error");
  }

  #showList(shown: boolean): void {
    find("sidebar").classList.toggle("open", shown);
    find("menu").setAttribute("aria-expanded", String(shown));
    if (!shown) return focusView();
    const row = document.querySelector<HTMLElement>("#sessions .current .open") ?? document.querySelector<HTMLElement>("#sessions .open");
    (row ?? find("new")).focus();
  }

  /** Puts the terminal back to what it was before a program changed it, for everybody who sees it. */
  #reset(): void {
    this.#connection?.send({ type: "reset" });
    say("The terminal was reset.");
  }

  #wire(): void {
    document.addEventListener("keydown", (event) => {
      if (!event.defaultPrevented) this.#shortcut(event);
    });
    find("find").addEventListener("click", () => this.#findBar.show(true));
    find("theme").addEventListener("click", () => {
      toggleTheme();
      focusView();
    });
    onThemeChange((of) => this.#connection?.colors(terminalColors(of)));
    find("menu").addEventListener("click", () => this.#showList(true));
    find("shade").addEventListener("click", () => this.#showList(false));
    find("sidebar").addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !document.querySelector(".menu:popover-open")) this.#showList(false);
    });
    find("more").append(menuOf("More", "header-more", () => this.#more()));
    find("logout").addEventListener("click", async () => {
      // First: its end would load the page again before the answer takes the cookie away.
      this.#connection?.stop();
      await api.logout().catch(() => null);
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

  #more(): Entry[] {
    const session = this.#session;
    const inTerminal = isShown("terminal") && session !== null;
    const canReset = inTerminal && session.access === "control" && session.state === "running";
    const actions = inTerminal && !this.isGuest ? this.#list.actions(session.sessionId) : [];
    const isDanger = (entry: Entry) => "danger" in entry && entry.danger === true;
    return [
      ...actions.filter((entry) => !isDanger(entry)),
      ...(canReset ? [{ label: "Reset terminal", act: () => this.#reset() }] : []),
      { label: "Settings…", act: () => void preferences() },
      { label: "Keyboard shortcuts", act: () => void help() },
      ...actions.filter(isDanger),
    ];
  }
}

/** What a connection is closed with whose session runs no more: it ended, is not there, was culled. */
const NO_SESSION = [1000, 4404, 4408];
const TAKE_EVERY = 1000;

async function main(): Promise<void> {
  begin();
  // The terminal, which is most of what is loaded, comes by the scripts behind this one.
  const loaded = new Promise((done) => document.addEventListener("DOMContentLoaded", done));
  find("loading").hidden = true;
  // What the server has to say is asked for meanwhile.
  const me = await logIn();
  const hasTerminal = me.guest !== null || me.scopes.some((scope) => ["sessions", "watch"].includes(scope));
  const lists = hasTerminal && !me.guest ? askLists(me.scopes.includes("sessions")) : undefined;
  lists?.catch(() => null);
  const offered = me.guest ? Promise.resolve([]) : api.capabilities().catch((): string[] => []);
  await loaded;
  if (typeof Terminal === "undefined") {
    find("loading").textContent = "The terminal could not be loaded. Is the network of its parts reachable?";
    find("loading").hidden = false;
    return;
  }
  find("app").hidden = false;
  const place = parsePlace(location.hash);
  let started: Promise<void> | null = null;
  if (hasTerminal) {
    let console: Console | null = null;
    const terminal = { id: "terminal", label: "Terminal", element: find("terminal-view"), focus: () => console?.focus() };
    register(terminal);
    console = new Console(me);
    started = console.start(lists);
  } else {
    document.body.classList.add("no-sessions");
    find("terminal-view").hidden = true;
    find("user").textContent = me.user;
  }
  // Meanwhile the terminal starts.
  const capabilities = await offered;
  const hasBatches = capabilities.includes("batches") && me.scopes.includes("execute");
  if (hasBatches) {
    const batches = new Batches();
    if (!hasTerminal || place?.view === "batches") show("batches");
    if (place?.view === "batches" && place.batch) void batches.open(place.batch);
  }
  if (!hasTerminal && !hasBatches) {
    find("no-view").hidden = false;
    find("no-view").textContent = noViewText(me.scopes);
  }
  await started;
}

void main();
