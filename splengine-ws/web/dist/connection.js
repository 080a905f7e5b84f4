import { ackFrame, afterClose, backoff, Outbox, readBinary, readText, SUBPROTOCOL, } from "./protocol.js";
export class Connection {
    #target;
    #listener;
    #open;
    #socket = null;
    #place = null;
    #outbox = new Outbox();
    #attempt = 0;
    #timer;
    #size = null;
    #colors = null;
    #expectsNumber = false;
    #ended = false;
    #watch;
    #heard = 0;
    #due = null;
    #isSilent = false;
    constructor(target, listener, open = openSocket) {
        this.#target = target;
        this.#listener = listener;
        this.#open = open;
    }
    get isOpen() {
        return this.#socket?.readyState === 1;
    }
    start() {
        clearTimeout(this.#timer);
        this.#timer = undefined;
        this.#listener.state("connecting", "", 0);
        const socket = this.#open();
        this.#socket = socket;
        this.#due = Date.now() + ANSWER_WITHIN;
        clearInterval(this.#watch);
        this.#watch = setInterval(() => this.#look(), LOOK_EVERY);
        socket.binaryType = "arraybuffer";
        socket.onopen = () => {
            if (this.#socket !== socket)
                return;
            if (this.#colors)
                this.send({ type: "colors", ...this.#colors });
            this.send(this.#first());
        };
        socket.onmessage = (event) => {
            if (this.#socket !== socket)
                return;
            this.#heard = Date.now();
            this.#due = null;
            if (this.#isSilent) {
                this.#isSilent = false;
                this.#listener.state("open", "", 0);
            }
            this.#message(event.data);
        };
        socket.onclose = (event) => {
            if (this.#socket === socket)
                this.#closed(event.code, event.reason);
        };
    }
    stop() {
        this.#ended = true;
        clearTimeout(this.#timer);
        clearInterval(this.#watch);
        const socket = this.#socket;
        this.#socket = null;
        socket?.close(1000);
    }
    hurry() {
        if (this.#ended)
            return;
        if (this.#timer !== undefined)
            this.start();
        else if (this.isOpen)
            this.#ask();
    }
    send(frame) {
        if (this.isOpen)
            this.#socket?.send(JSON.stringify(frame));
    }
    input(data) {
        if (this.#outbox.length + data.length > MOST_WAITING)
            return false;
        this.#outbox.push(data);
        this.#flush();
        return true;
    }
    ack(offset) {
        if (this.isOpen)
            this.#socket?.send(ackFrame(offset));
    }
    resize(cols, rows) {
        this.#size = { cols, rows };
        this.send({ type: "resize", cols, rows });
    }
    colors(colors) {
        this.#colors = colors;
        this.send({ type: "colors", ...colors });
    }
    reached(offset) {
        if (this.#place)
            this.#place.offset = offset;
    }
    #first() {
        const size = this.#size ?? {};
        const place = this.#place;
        if (place) {
            const { sessionId, epoch, client, offset } = place;
            const access = this.#target.kind === "attach" ? this.#target.access : undefined;
            return { type: "attach", sessionId, epoch, client, offset, ...(access && { access }), ...size };
        }
        const target = this.#target;
        switch (target.kind) {
            case "attach":
                return { type: "attach", sessionId: target.sessionId, ...(target.access && { access: target.access }), ...size };
            case "new":
                return { type: "new_session", ...size, ...target.request };
            case "load":
                return { type: "load_session", savedId: target.savedId };
        }
    }
    #message(data) {
        if (typeof data !== "string") {
            const frame = readBinary(data);
            if (!frame)
                return;
            const end = frame.offset + (frame.kind === "output" ? frame.data.length : 0);
            this.reached(end);
            this.#listener.bytes(frame);
            return;
        }
        const frame = readText(data);
        if (!frame)
            return;
        if (frame.type === "session") {
            this.#attempt = 0;
            const { sessionId, epoch, client } = frame;
            const same = this.#place?.client === client && this.#place.sessionId === sessionId;
            if (!same) {
                if (this.#place && this.#outbox.length > 0)
                    this.#listener.untyped();
                this.#outbox.clear();
            }
            const offset = same && this.#place ? this.#place.offset : frame.offset;
            this.#place = { sessionId, epoch, client, offset };
            this.#target = {
                kind: "attach",
                sessionId,
                ...(this.#target.kind === "attach" && this.#target.access && { access: this.#target.access }),
            };
            this.#expectsNumber = same;
            if (!same)
                this.#flush();
            this.#listener.state("open", "", 0);
        }
        else if (frame.type === "input_ack") {
            if (this.#expectsNumber) {
                this.#expectsNumber = false;
                this.#outbox.restart(frame.number);
            }
            else {
                this.#outbox.acknowledge(frame.number);
            }
            this.#flush();
        }
        this.#listener.frame(frame);
    }
    #flush() {
        if (!this.isOpen || !this.#place || this.#expectsNumber)
            return;
        for (const frame of this.#outbox.frames())
            this.#socket?.send(frame);
    }
    #look() {
        const now = Date.now();
        if (this.#due !== null && now >= this.#due) {
            const socket = this.#socket;
            this.#closed(1006, "");
            socket?.close();
        }
        else if (this.#due !== null && this.#place !== null && this.isOpen && !this.#isSilent && this.#due - now <= PONG_WITHIN - SILENT) {
            this.#isSilent = true;
            this.#listener.state("silent", "", 0);
        }
        else if (this.isOpen && now - this.#heard >= QUIET) {
            this.#ask();
        }
    }
    #ask() {
        if (this.#due !== null)
            return;
        this.#due = Date.now() + PONG_WITHIN;
        this.send({ type: "ping" });
    }
    #closed(code, reason) {
        this.#socket = null;
        this.#due = null;
        this.#isSilent = false;
        clearInterval(this.#watch);
        if (this.#ended)
            return;
        const next = afterClose(code);
        this.#listener.state(next, reason, code);
        if (next !== "again") {
            this.#ended = true;
            return;
        }
        this.#timer = setTimeout(() => this.start(), backoff(this.#attempt));
        this.#attempt += 1;
    }
}
function openSocket() {
    const url = new URL("terminal", document.baseURI);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    url.hash = "";
    return new WebSocket(url, SUBPROTOCOL);
}
const MOST_WAITING = 8 * 1024 * 1024;
const LOOK_EVERY = 1_000;
const QUIET = 5_000;
const ANSWER_WITHIN = 15_000;
const PONG_WITHIN = 8_000;
const SILENT = 3_000;
