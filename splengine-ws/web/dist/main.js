// The console, put together.
import { api } from "./api.js";
import { Batches } from "./batches.js";
import { copy } from "./clipboard.js";
import { Connection } from "./connection.js";
import { say } from "./dialogs.js";
import { find } from "./dom.js";
import { help } from "./help.js";
import { logIn } from "./login.js";
import { People } from "./people.js";
import { nameOf, SessionList } from "./sessions.js";
import { Screen } from "./terminal.js";
import { apply, toggleTheme } from "./theme.js";
import { touchKeys } from "./touch.js";
import { isShown, register, show } from "./views.js";
class Console {
    #me;
    #connection = null;
    #screen;
    #people;
    #list;
    #session = null;
    #inControl = false;
    #room = null;
    /** What the server said last that is wrong. */
    #problem = "";
    #patience;
    constructor(me) {
        this.#me = me;
        this.#people = new People({ send: (frame) => this.#connection?.send(frame) });
        const viaTouch = touchKeys((text) => this.#screen.type(text), () => this.#screen.term.modes.applicationCursorKeysMode);
        this.#screen = new Screen(find("terminal"), {
            input: (data) => {
                const typed = this.#connection?.input(viaTouch(data)) ?? true;
                if (!typed)
                    say("That was not typed: too much input waits for the server already.", "error");
            },
            ack: (offset) => this.#connection?.ack(offset),
            room: (cols, rows) => this.#fits(cols, rows),
            isShortcut: (event) => event.type === "keydown" && this.#shortcut(event),
            refused: () => {
                if (this.#session?.access === "view")
                    say("You are looking on: what you type goes nowhere.");
            },
        });
        this.#list = new SessionList({
            open: (target) => this.open(target),
            current: () => this.#session?.sessionId ?? null,
            room: () => this.#room,
            left: () => this.#forget(),
            listed: () => this.#named(),
        });
        Object.assign(window, { splengine: { terminalText: () => this.#screen.text() } });
        this.#wire();
    }
    async start() {
        document.body.classList.toggle("guest", this.#me.guest !== null);
        find("user").textContent = this.#me.user;
        if (this.#me.guest) {
            const { sessionId, access } = this.#me.guest;
            return this.#open({ kind: "attach", sessionId, access });
        }
        const problem = await this.#list.refresh();
        if (problem !== "")
            return this.#banner(problem, () => void this.start(), "Try again");
        const wanted = new URLSearchParams(location.hash.slice(1)).get("session");
        const found = this.#list.sessions.find((session) => session.sessionId === wanted);
        const kept = wanted && (!found || found.state === "lost") ? this.#list.kept(wanted) : null;
        if (kept)
            return this.#offer(kept);
        const chosen = found ?? this.#list.sessions.find((session) => session.state === "running");
        if (wanted && !found)
            say("The session of this address is not there any more.", "error");
        // Whoever has turned to another view meanwhile stays there.
        this.#open(chosen ? { kind: "attach", sessionId: chosen.sessionId } : { kind: "new", request: {} });
    }
    open(target) {
        show("terminal");
        this.#open(target);
    }
    #open(target) {
        this.#connection?.stop();
        this.#session = null;
        this.#inControl = false;
        this.#problem = "";
        this.#calm();
        this.#banner("");
        this.#screen.clear();
        this.#rights();
        this.#people.clients = [];
        this.#showList(false);
        const connection = new Connection(target, {
            frame: (frame) => this.#frame(frame),
            bytes: (frame) => this.#screen.bytes(frame),
            untyped: () => say("What was typed while the connection was broken was not typed here.", "error"),
            state: (state, reason, code) => this.#state(state, reason, code),
        });
        this.#connection = connection;
        this.#screen.layout();
        if (this.#room)
            connection.resize(this.#room.cols, this.#room.rows);
        connection.start();
        this.#screen.term.focus();
    }
    #frame(frame) {
        switch (frame.type) {
            case "session": {
                this.#session = frame;
                history.replaceState(null, "", `#session=${encodeURIComponent(frame.sessionId)}`);
                this.#screen.size(frame.cols, frame.rows);
                this.#rights();
                this.#title(frame.title);
                if (!this.#me.guest)
                    void this.#list.refresh();
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
                // A server that has nothing else for us closes next; then the banner says it.
                if (find("status").dataset.state === "open")
                    say(frame.error, "error");
                else
                    this.#problem = frame.error;
                break;
        }
    }
    #notice(frame) {
        const words = {
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
        if (text)
            say(text, frame.kind === "idle_warning" ? "error" : "info");
    }
    #state(state, reason, code) {
        const status = find("status");
        status.dataset.state = state;
        status.textContent = { connecting: "connecting…", open: "connected", again: "reconnecting…", login: "logged out", over: "closed" }[state] ?? state;
        if (state === "open") {
            this.#calm();
            this.#banner("");
            this.#problem = "";
        }
        // A break that is over at once is not worth a word.
        if (state === "again")
            this.#patience ??= setTimeout(() => this.#waiting(), 1000);
        if (state === "login")
            location.reload();
        if (state !== "over")
            return;
        this.#calm();
        find("app").classList.add("away");
        this.#screen.rights(false, false);
        this.#people.clients = [];
        const id = this.#session?.sessionId;
        if (code === 4404 && id && !this.#me.guest)
            return void this.#gone(id);
        const text = this.#problem !== "" && code >= 4400 && code !== 4403 ? this.#problem : {
            1000: find("banner-text").textContent || "The session has ended.",
            4403: "You may not use this session any more.",
            4404: "This session is not there any more.",
            4408: "The session was idle or old and has been ended.",
            4429: "There are too many sessions or clients. End one first.",
        }[code] ?? `The server closed the connection${reason ? `: ${reason}` : ""}.`;
        if (this.#me.guest)
            this.#banner(text);
        else
            this.#banner(text, () => this.open({ kind: "new", request: {} }), "New session");
        if (!this.#me.guest)
            void this.#list.refresh();
    }
    #calm() {
        clearTimeout(this.#patience);
        this.#patience = undefined;
        find("app").classList.remove("away");
    }
    #waiting() {
        find("app").classList.add("away");
        this.#banner("The connection broke. Trying again…", () => this.#connection?.hurry(), "Now");
    }
    /** The session is not running any more: maybe it can be gone on with. */
    async #gone(id) {
        await this.#list.refresh();
        if (this.#session?.sessionId !== id)
            return;
        const kept = this.#list.kept(id);
        if (kept)
            this.#offer(kept);
        else
            this.#banner("This session is not there any more.", () => this.open({ kind: "new", request: {} }), "New session");
    }
    #offer(savedId) {
        this.#banner("This session ended with its server. Its screen and its directory are kept.", () => this.open({ kind: "load", savedId }), "Go on from there");
    }
    #forget() {
        this.#connection?.stop();
        this.#session = null;
        this.#screen.rights(false, false);
        this.#banner("The session has ended.", () => this.open({ kind: "new", request: {} }), "New session");
    }
    #banner(text, act, label) {
        find("banner").hidden = text === "";
        find("banner-text").textContent = text;
        const button = find("banner-button");
        button.hidden = !act;
        button.textContent = label ?? "";
        button.onclick = act ?? null;
    }
    #rights() {
        const canType = this.#session?.access === "control";
        this.#screen.rights(canType, this.#inControl);
        const badge = find("access");
        badge.hidden = canType || this.#session === null;
        badge.textContent = "looking on";
    }
    #fits(cols, rows) {
        if (this.#room?.cols === cols && this.#room.rows === rows)
            return;
        this.#room = { cols, rows };
        this.#connection?.resize(cols, rows);
    }
    #title(title) {
        const session = this.#session;
        if (!session)
            return;
        session.title = title;
        const name = nameOf(session);
        find("title").textContent = name;
        document.title = `${name} · splengine`;
    }
    /** A session may be renamed from elsewhere. */
    #named() {
        const session = this.#session;
        const listed = this.#list.sessions.find((one) => one.sessionId === session?.sessionId);
        if (!session || !listed || listed.name === session.name)
            return;
        session.name = listed.name;
        this.#title(session.title);
    }
    #shortcut(event) {
        if (!event.ctrlKey || !event.shiftKey || event.altKey || event.metaKey)
            return false;
        if (document.querySelector("dialog[open]"))
            return false;
        const selected = this.#screen.term.getSelection();
        const act = {
            ...(selected !== "" && { KeyC: () => void this.#copy(selected) }),
            KeyF: () => this.#find(true),
            KeyL: () => this.#showList(true),
            KeyY: () => void this.#list.create(),
            KeyH: () => void help(),
            KeyE: () => toggleTheme(),
        }[event.code];
        if (!isShown("terminal") && !["KeyH", "KeyE"].includes(event.code))
            return false;
        if (!act || (this.#me.guest && ["KeyL", "KeyY"].includes(event.code)))
            return false;
        event.preventDefault();
        act();
        return true;
    }
    async #copy(text) {
        const done = await copy(text);
        say(done ? "Copied." : "The browser does not let this page copy.", done ? "info" : "error");
    }
    #showList(shown) {
        find("sidebar").classList.toggle("open", shown);
        find("menu").setAttribute("aria-expanded", String(shown));
        if (!shown)
            return this.#screen.term.focus();
        const row = document.querySelector("#sessions .current .open") ?? document.querySelector("#sessions .open");
        (row ?? find("new")).focus();
    }
    #find(shown) {
        find("search").hidden = !shown;
        if (shown)
            find("search-text").focus();
        else {
            this.#screen.search.clearDecorations();
            this.#screen.term.focus();
        }
    }
    #wire() {
        document.addEventListener("keydown", (event) => {
            if (!event.defaultPrevented)
                this.#shortcut(event);
        });
        const text = find("search-text");
        const next = (back) => {
            const { search } = this.#screen;
            const found = text.value === "" || (back ? search.findPrevious(text.value) : search.findNext(text.value));
            find("search-problem").textContent = found ? "" : "not found";
        };
        text.addEventListener("input", () => next(false));
        text.addEventListener("keydown", (event) => {
            if (event.key === "Enter")
                next(event.shiftKey);
            if (event.key === "Escape")
                this.#find(false);
        });
        find("search-back").addEventListener("click", () => next(true));
        find("search-on").addEventListener("click", () => next(false));
        find("search-close").addEventListener("click", () => this.#find(false));
        find("find").addEventListener("click", () => this.#find(true));
        find("theme").addEventListener("click", toggleTheme);
        find("help").addEventListener("click", () => void help());
        find("menu").addEventListener("click", () => this.#showList(true));
        find("shade").addEventListener("click", () => this.#showList(false));
        find("sidebar").addEventListener("keydown", (event) => {
            if (event.key === "Escape" && !document.querySelector(".menu:popover-open"))
                this.#showList(false);
        });
        find("logout").addEventListener("click", async () => {
            await api.logout().catch(() => null);
            this.#connection?.stop();
            location.hash = "";
            location.reload();
        });
        const current = (act) => () => {
            if (this.#session)
                act(this.#session.sessionId);
        };
        find("save").addEventListener("click", current((id) => this.#list.save(id)));
        find("share").addEventListener("click", current((id) => this.#list.share(id)));
        find("end").addEventListener("click", current((id) => this.#list.end(id)));
        addEventListener("online", () => this.#connection?.hurry());
        document.addEventListener("visibilitychange", () => {
            if (!document.hidden)
                this.#connection?.hurry();
        });
    }
}
async function main() {
    apply();
    if (typeof Terminal === "undefined") {
        find("login-problem").textContent = "The terminal could not be loaded. Is the network of its parts reachable?";
        find("login").hidden = false;
        return;
    }
    register({ id: "terminal", label: "Terminal", element: find("terminal-view") });
    const me = await logIn();
    find("app").hidden = false;
    const capabilities = me.guest ? [] : await api.capabilities().catch(() => []);
    if (capabilities.includes("batches"))
        new Batches();
    await new Console(me).start();
}
void main();
