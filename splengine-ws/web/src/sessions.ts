// The list of one's sessions, and what can be done with each.

import { api, type Saved, type Session } from "./api.js";
import type { Target } from "./connection.js";
import { askText, attempt, confirmed, dialog, field, say } from "./dialogs.js";
import { ago, find, make } from "./dom.js";
import { type Entry, menuOf } from "./menu.js";
import { shareDialog } from "./share.js";

export interface Opener {
  open(target: Target): void;
  current(): string | null;
  /** Whether more than looking is allowed. */
  mayType(): boolean;
  /** Whether there is a list to be had: for a guest, as long as the link is good. */
  mayList(): boolean;
  /** What the window has room for. */
  room(): { cols: number; rows: number } | null;
  /** The current session was ended here. */
  left(): void;
  /** The list is new. */
  listed(): void;
}

/** What the server lists; saved sessions only if they could be had. */
export type Lists = Promise<[Session[], Saved[] | null]>;

/** `owns`: whether the user may have sessions of their own; to others the server refuses what is saved. */
export function askLists(owns: boolean): Lists {
  return Promise.all([api.sessions(), owns ? api.saved().catch(() => null) : null]);
}

const EVERY = 4000;

export class SessionList {
  #opener: Opener;
  #sessions: Session[] = [];
  #saved: Saved[] = [];
  #drawn = "";
  #problem = "";

  constructor(opener: Opener) {
    this.#opener = opener;
    find("new").addEventListener("click", () => void this.create());
    find("sidebar").addEventListener("keydown", moveInList);
    setInterval(() => {
      if (!document.hidden && this.#opener.mayList()) void this.refresh();
    }, EVERY);
  }

  /** Why the list could not be had; empty when it could. `asked` is what was asked for already. */
  async refresh(asked: Lists = askLists(this.#opener.mayType())): Promise<string> {
    try {
      const [sessions, saved] = await asked;
      [this.#sessions, this.#saved, this.#problem] = [sessions, saved ?? this.#saved, ""];
    } catch (error) {
      this.#problem = error instanceof Error ? error.message : String(error);
    }
    this.draw();
    if (this.#problem === "") this.#opener.listed();
    return this.#problem;
  }

  get sessions(): Session[] {
    return this.#sessions;
  }

  /** What to load in place of a session that ended with its server; null when nothing is kept of it. */
  kept(id: string): string | null {
    if (this.#sessions.some((session) => session.sessionId === id && session.state === "lost")) return id;
    return this.#saved.find((saved) => saved.sessionId === id)?.savedId ?? null;
  }

  draw(): void {
    // Not under the hand of someone who chooses.
    if (document.querySelector(".menu:popover-open")) return;
    const current = this.#opener.current();
    const drawn = JSON.stringify([this.#sessions, this.#saved, this.#problem, current, Math.floor(Date.now() / 10_000)]);
    if (drawn === this.#drawn) return;
    this.#drawn = drawn;
    const focused = (document.activeElement as HTMLElement | null)?.dataset.key;
    find("sessions").replaceChildren(...this.#sessions.map((session) => this.#row(session, session.sessionId === current)));
    find("saved").replaceChildren(...this.#saved.map((saved) => this.#savedRow(saved)));
    find("saved-part").hidden = this.#saved.length === 0;
    find("no-sessions").hidden = this.#sessions.length > 0 || this.#problem !== "";
    find("list-problem").textContent = this.#problem;
    if (focused) document.querySelector<HTMLElement>(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  async create(): Promise<void> {
    const name = make("input", { type: "text", autocomplete: "off", placeholder: "optional" });
    const command = make("input", { type: "text", autocomplete: "off", placeholder: "a shell" });
    const workdir = make("input", { type: "text", autocomplete: "off", placeholder: "the root directory" });
    const session = await dialog(
      "New session",
      [field("Name", name), field("Command", command), field("Directory", workdir)],
      { label: "Start session" },
      () =>
        api.create({
          ...(name.value.trim() && { name: name.value.trim() }),
          ...(command.value.trim() && { command: command.value.trim() }),
          ...(workdir.value.trim() && { workdir: workdir.value.trim() }),
          ...this.#opener.room(),
        }),
    );
    if (session) this.#opener.open({ kind: "attach", sessionId: session.sessionId });
  }

  async save(id: string): Promise<void> {
    const session = this.#sessions.find((one) => one.sessionId === id);
    const saved = await askText("Save session", "Name", session?.name ?? "", "Save", (name) => api.save(id, name || null));
    if (saved) say("Session saved.");
    await this.refresh();
  }

  async rename(id: string): Promise<void> {
    const session = this.#sessions.find((one) => one.sessionId === id);
    await askText("Rename session", "Name", session?.name ?? "", "Rename", (name) => api.rename(id, name || null));
    await this.refresh();
  }

  async end(id: string): Promise<void> {
    const session = this.#sessions.find((one) => one.sessionId === id);
    const runs = session?.state === "running";
    const sure = await confirmed(
      runs ? "End this session?" : "Remove this session?",
      runs ? "Everything that runs in it is stopped." : "Its screen and its recording are deleted.",
      runs ? "End session" : "Remove session",
      runs ? "Keep running" : "Keep session",
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
      running: session.clients === 0 ? "not open anywhere" : `open in ${session.clients} ${session.clients === 1 ? "place" : "places"}`,
      exited: `ended with exit code ${session.exitCode ?? "?"}`,
      lost: "stopped with the server; open to restore",
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
    const { sessionId: id } = session;
    return menuOf(`Actions for ${nameOf(session)}`, `${id}-more`, () => this.actions(id));
  }

  /** What can be done with a session. */
  actions(id: string): Entry[] {
    const session = this.#sessions.find((one) => one.sessionId === id);
    const runs = session?.state === "running";
    const owns = this.#opener.mayType();
    const change: Entry[] = [
      { label: "Rename…", act: () => void this.rename(id) },
      { label: "Save…", act: () => void this.save(id) },
      ...(runs ? [{ label: "Share…", act: () => void this.share(id) }] : []),
    ];
    return [
      ...(owns ? change : []),
      { label: "Download recording", href: api.recording(id), download: `${id}.cast` },
      { label: "Download screen as text", href: api.screen(id), download: `${id}.txt` },
      ...(owns ? [{ label: runs ? "End session…" : "Remove session…", act: () => void this.end(id), danger: true }] : []),
    ];
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
        if (await confirmed("Remove this saved session?", "It can't be restored after that.", "Remove session", "Keep session")) {
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

/** The arrows go from one session to the next. */
function moveInList(event: KeyboardEvent): void {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const at = event.target as HTMLElement;
  if (!step || !at.classList.contains("open")) return;
  const all = [...document.querySelectorAll<HTMLElement>("#sidebar .open")];
  all[all.indexOf(at) + step]?.focus();
  event.preventDefault();
}
