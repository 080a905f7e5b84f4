// The list of one's sessions, and what can be done with each.

import { api, type Saved, type Session } from "./api.js";
import { askText, attempt, confirmed, dialog, field, say } from "./dialogs.js";
import { ago, find, make } from "./dom.js";
import type { Target } from "./connection.js";
import { shareDialog } from "./share.js";

export interface Opener {
  open(target: Target): void;
  current(): string | null;
  /** The current session was ended here. */
  left(): void;
}

const EVERY = 4000;

export class SessionList {
  #opener: Opener;
  #sessions: Session[] = [];
  #saved: Saved[] = [];
  #drawn = "";

  constructor(opener: Opener) {
    this.#opener = opener;
    find("new").addEventListener("click", () => void this.create());
    setInterval(() => {
      if (!document.hidden) void this.refresh();
    }, EVERY);
  }

  async refresh(): Promise<void> {
    try {
      this.#sessions = await api.sessions();
      this.#saved = await api.saved().catch(() => []);
    } catch {
      return;
    }
    this.draw();
  }

  get sessions(): Session[] {
    return this.#sessions;
  }

  draw(): void {
    const current = this.#opener.current();
    const drawn = JSON.stringify([this.#sessions, this.#saved, current, Math.floor(Date.now() / 10_000)]);
    if (drawn === this.#drawn) return;
    this.#drawn = drawn;
    const focused = (document.activeElement as HTMLElement | null)?.dataset.key;
    find("sessions").replaceChildren(...this.#sessions.map((session) => this.#row(session, session.sessionId === current)));
    find("saved").replaceChildren(...this.#saved.map((saved) => this.#savedRow(saved)));
    find("saved-part").hidden = this.#saved.length === 0;
    find("no-sessions").hidden = this.#sessions.length > 0;
    if (focused) document.querySelector<HTMLElement>(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  async create(): Promise<void> {
    const name = make("input", { type: "text", autocomplete: "off", placeholder: "none" });
    const command = make("input", { type: "text", autocomplete: "off", placeholder: "the shell" });
    const workdir = make("input", { type: "text", autocomplete: "off", placeholder: "the root directory" });
    const request = await dialog(
      "New session",
      [field("Name", name), field("Command", command), field("Directory", workdir)],
      { label: "Start" },
      () => ({
        ...(name.value.trim() && { name: name.value.trim() }),
        ...(command.value.trim() && { command: command.value.trim() }),
        ...(workdir.value.trim() && { workdir: workdir.value.trim() }),
      }),
    );
    if (request) this.#opener.open({ kind: "new", request });
  }

  async save(id: string): Promise<void> {
    const session = this.#sessions.find((one) => one.sessionId === id);
    const name = await askText("Save this session", "Name", session?.name ?? "", "Save");
    if (name === null) return;
    const saved = await attempt(() => api.save(id, name || null));
    if (saved) say("The session is saved.");
    await this.refresh();
  }

  async rename(id: string): Promise<void> {
    const session = this.#sessions.find((one) => one.sessionId === id);
    const name = await askText("Rename this session", "Name", session?.name ?? "", "Rename");
    if (name === null) return;
    await attempt(() => api.rename(id, name || null));
    await this.refresh();
  }

  async end(id: string): Promise<void> {
    const session = this.#sessions.find((one) => one.sessionId === id);
    const runs = session?.state === "running";
    const sure = await confirmed(
      runs ? "End this session?" : "Remove this session?",
      runs ? "Its program and all that it started are ended." : "Its screen and its recording are removed.",
      runs ? "End it" : "Remove it",
    );
    if (!sure) return;
    const done = await attempt(() => api.end(id).then(() => true));
    if (done && id === this.#opener.current()) this.#opener.left();
    await this.refresh();
  }

  share(id: string): Promise<void> {
    return shareDialog(id);
  }

  #row(session: Session, isCurrent: boolean): HTMLElement {
    const { sessionId: id, state } = session;
    const open = () => {
      if (state === "running") this.#opener.open({ kind: "attach", sessionId: id });
      else if (state === "lost") this.#opener.open({ kind: "load", savedId: id });
      else this.#opener.open({ kind: "attach", sessionId: id });
    };
    const what = {
      running: session.clients === 1 ? "1 here" : `${session.clients} here`,
      exited: `ended with ${session.exitCode ?? "?"}`,
      lost: "lost with its server; open it to go on",
    }[state];
    const main = make(
      "button",
      { type: "button", class: "open", onclick: open, title: session.workdir ?? "" },
      make("span", { class: `dot ${state}` }),
      make("span", { class: "name" }, nameOf(session)),
      make("span", { class: "detail" }, `${what} · ${ago(session.lastActivity)}`),
    );
    main.dataset.key = id;
    if (isCurrent) main.setAttribute("aria-current", "true");
    return make("li", { class: isCurrent ? "current" : "" }, main, this.#menu(session));
  }

  #menu(session: Session): HTMLElement {
    const id = session.sessionId;
    const entry = (label: string, act: () => void, danger = false) =>
      make("button", { type: "button", class: danger ? "danger" : "", role: "menuitem", onclick: () => {
        menu.hidePopover();
        act();
      } }, label);
    const menu = make(
      "div",
      { class: "menu", role: "menu" },
      entry("Rename…", () => void this.rename(id)),
      entry("Save…", () => void this.save(id)),
      session.state === "running" && entry("Share…", () => void this.share(id)),
      make("a", { href: api.recording(id), download: `${id}.cast`, role: "menuitem" }, "Download the recording"),
      make("a", { href: api.screen(id), download: `${id}.txt`, role: "menuitem" }, "Download the screen's text"),
      entry(session.state === "running" ? "End…" : "Remove…", () => void this.end(id), true),
    );
    menu.setAttribute("popover", "auto");
    const button = make("button", { type: "button", class: "more", label: `More for ${nameOf(session)}` }, "⋯");
    button.dataset.key = `${id}-more`;
    button.popoverTargetElement = menu;
    menu.addEventListener("toggle", () => {
      const { right, bottom } = button.getBoundingClientRect();
      menu.style.top = `${Math.min(bottom, innerHeight - menu.offsetHeight - 8)}px`;
      menu.style.left = `${Math.max(right - menu.offsetWidth, 8)}px`;
    });
    return make("div", { class: "menu-of" }, button, menu);
  }

  #savedRow(saved: Saved): HTMLElement {
    const main = make(
      "button",
      { type: "button", class: "open", onclick: () => this.#opener.open({ kind: "load", savedId: saved.savedId }), title: saved.workdir ?? "" },
      make("span", { class: "dot saved" }),
      make("span", { class: "name" }, saved.name ?? "saved session"),
      make("span", { class: "detail" }, `saved ${ago(saved.created)}`),
    );
    main.dataset.key = saved.savedId;
    const remove = make("button", {
      type: "button",
      class: "more",
      label: `Remove ${saved.name ?? "saved session"}`,
      onclick: async () => {
        if (await confirmed("Remove this saved session?", "It can't be loaded any more.", "Remove it")) {
          await attempt(() => api.removeSaved(saved.savedId));
          await this.refresh();
        }
      },
    }, "×");
    return make("li", {}, main, remove);
  }
}

export function nameOf(session: { name: string | null; title: string; sessionId: string }): string {
  return session.name ?? (session.title.trim() || `session ${session.sessionId.slice(-5)}`);
}
