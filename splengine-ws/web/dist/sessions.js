import { api } from "./api.js";
import { askText, attempt, confirmed, dialog, field, say } from "./dialogs.js";
import { ago, find, make } from "./dom.js";
import { menuOf } from "./menu.js";
import { shareDialog } from "./share.js";
export function askLists(owns) {
    return Promise.all([api.sessions(), owns ? api.saved().catch(() => null) : null]);
}
const EVERY = 4000;
export class SessionList {
    #opener;
    #sessions = [];
    #saved = [];
    #drawn = "";
    #problem = "";
    constructor(opener) {
        this.#opener = opener;
        find("new").addEventListener("click", () => void this.create());
        find("sidebar").addEventListener("keydown", moveInList);
        setInterval(() => {
            if (!document.hidden && this.#opener.mayList())
                void this.refresh();
        }, EVERY);
    }
    async refresh(asked = askLists(this.#opener.mayType())) {
        try {
            const [sessions, saved] = await asked;
            [this.#sessions, this.#saved, this.#problem] = [sessions, saved ?? this.#saved, ""];
        }
        catch (error) {
            this.#problem = error instanceof Error ? error.message : String(error);
        }
        this.draw();
        if (this.#problem === "")
            this.#opener.listed();
        return this.#problem;
    }
    get sessions() {
        return this.#sessions;
    }
    kept(id) {
        if (this.#sessions.some((session) => session.sessionId === id && session.state === "lost"))
            return id;
        return this.#saved.find((saved) => saved.sessionId === id)?.savedId ?? null;
    }
    draw() {
        if (document.querySelector(".menu:popover-open"))
            return;
        const current = this.#opener.current();
        const drawn = JSON.stringify([this.#sessions, this.#saved, this.#problem, current, Math.floor(Date.now() / 10_000)]);
        if (drawn === this.#drawn)
            return;
        this.#drawn = drawn;
        const focused = document.activeElement?.dataset.key;
        find("sessions").replaceChildren(...this.#sessions.map((session) => this.#row(session, session.sessionId === current)));
        find("saved").replaceChildren(...this.#saved.map((saved) => this.#savedRow(saved)));
        find("saved-part").hidden = this.#saved.length === 0;
        find("no-sessions").hidden = this.#sessions.length > 0 || this.#problem !== "";
        find("list-problem").textContent = this.#problem;
        if (focused)
            document.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
    }
    async create() {
        const name = make("input", { type: "text", autocomplete: "off", placeholder: "optional" });
        const command = make("input", { type: "text", autocomplete: "off", placeholder: "a shell" });
        const workdir = make("input", { type: "text", autocomplete: "off", placeholder: "the root directory" });
        const session = await dialog("New session", [field("Name", name), field("Command", command), field("Directory", workdir)], { label: "Start session" }, () => api.create({
            ...(name.value.trim() && { name: name.value.trim() }),
            ...(command.value.trim() && { command: command.value.trim() }),
            ...(workdir.value.trim() && { workdir: workdir.value.trim() }),
            ...this.#opener.room(),
        }));
        if (session)
            this.#opener.open({ kind: "attach", sessionId: session.sessionId });
    }
    async save(id) {
        const session = this.#sessions.find((one) => one.sessionId === id);
        const saved = await askText("Save session", "Name", session?.name ?? "", "Save", (name) => api.save(id, name || null));
        if (saved)
            say("Session saved.");
        await this.refresh();
    }
    async rename(id) {
        const session = this.#sessions.find((one) => one.sessionId === id);
        await askText("Rename session", "Name", session?.name ?? "", "Rename", (name) => api.rename(id, name || null));
        await this.refresh();
    }
    async end(id) {
        const session = this.#sessions.find((one) => one.sessionId === id);
        const runs = session?.state === "running";
        const sure = await confirmed(runs ? "End this session?" : "Remove this session?", runs ? "Everything that runs in it is stopped." : "Its screen and its recording are deleted.", runs ? "End session" : "Remove session", runs ? "Keep running" : "Keep session");
        if (!sure)
            return;
        const done = await attempt(() => api.end(id).then(() => true));
        if (done && id === this.#opener.current())
            this.#opener.left();
        await this.refresh();
    }
    share(id) {
        return shareDialog(id);
    }
    #row(session, isCurrent) {
        const { sessionId: id, state } = session;
        const open = () => {
            if (state === "running")
                this.#opener.open({ kind: "attach", sessionId: id });
            else if (state === "lost")
                this.#opener.open({ kind: "load", savedId: id });
            else
                this.#opener.open({ kind: "attach", sessionId: id });
        };
        const what = {
            running: session.clients === 0 ? "not open anywhere" : `open in ${session.clients} ${session.clients === 1 ? "place" : "places"}`,
            exited: `ended with exit code ${session.exitCode ?? "?"}`,
            lost: "stopped with the server; open to restore",
        }[state];
        const main = make("button", { type: "button", class: "open", onclick: open, title: session.workdir ?? "" }, make("span", { class: `dot ${state}` }), make("span", { class: "name" }, nameOf(session)), make("span", { class: "detail" }, `${what} · ${ago(session.lastActivity)}`));
        main.dataset.key = id;
        if (isCurrent)
            main.setAttribute("aria-current", "true");
        return make("li", { class: isCurrent ? "current" : "" }, main, this.#menu(session));
    }
    #menu(session) {
        const { sessionId: id } = session;
        return menuOf(`Actions for ${nameOf(session)}`, `${id}-more`, () => this.actions(id));
    }
    actions(id) {
        const session = this.#sessions.find((one) => one.sessionId === id);
        const runs = session?.state === "running";
        const owns = this.#opener.mayType();
        const change = [
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
    #savedRow(saved) {
        const main = make("button", { type: "button", class: "open", onclick: () => this.#opener.open({ kind: "load", savedId: saved.savedId }), title: saved.workdir ?? "" }, make("span", { class: "dot saved" }), make("span", { class: "name" }, saved.name ?? "saved session"), make("span", { class: "detail" }, `saved ${ago(saved.created)}`));
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
export function nameOf(session) {
    return session.name ?? (session.title.trim() || `session ${session.sessionId.slice(-5)}`);
}
function moveInList(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const at = event.target;
    if (!step || !at.classList.contains("open"))
        return;
    const all = [...document.querySelectorAll("#sidebar .open")];
    all[all.indexOf(at) + step]?.focus();
    event.preventDefault();
}
