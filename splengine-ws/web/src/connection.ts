// One WebSocket after the other, as if it were one that never breaks.

import {
  type Access,
  ackFrame,
  afterClose,
  backoff,
  type BinaryFrame,
  Outbox,
  readBinary,
  readText,
  type ServerFrame,
  SUBPROTOCOL,
} from "./protocol.js";

export type Target =
  | { kind: "attach"; sessionId: string; access?: Access }
  | { kind: "new"; request: Record<string, unknown> }
  | { kind: "load"; savedId: string };

export interface Listener {
  frame(frame: ServerFrame): void;
  bytes(frame: BinaryFrame): void;
  /** What was typed last may not have come: the server knows this client no more. */
  untyped(): void;
  /** `silent`: an answer is late; `again`: it comes back by itself. */
  state(state: "connecting" | "open" | "silent" | "again" | "login" | "over", reason: string, code: number): void;
}

type Socket = Pick<WebSocket, "send" | "close" | "readyState"> & {
  binaryType: BinaryType;
  onopen: ((event: Event) => void) | null;
  onclose: ((event: CloseEvent) => void) | null;
  onmessage: ((event: MessageEvent) => void) | null;
};

/** The colours of the terminal where a program has set none, as `#rrggbb`. */
export interface Colors {
  foreground: string;
  background: string;
  cursor: string;
}

interface Place {
  sessionId: string;
  epoch: string;
  client: string;
  offset: number;
}

export class Connection {
  #target: Target;
  #listener: Listener;
  #open: () => Socket;
  #socket: Socket | null = null;
  #place: Place | null = null;
  #outbox = new Outbox();
  #attempt = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #size: { cols: number; rows: number } | null = null;
  #colors: Colors | null = null;
  #expectsNumber = false;
  #ended = false;
  #watch: ReturnType<typeof setInterval> | undefined;
  #heard = 0;
  /** By when something has to be heard; null when nothing is owed. */
  #due: number | null = null;
  #isSilent = false;

  constructor(target: Target, listener: Listener, open: () => Socket = openSocket) {
    this.#target = target;
    this.#listener = listener;
    this.#open = open;
  }

  get isOpen(): boolean {
    return this.#socket?.readyState === 1;
  }

  start(): void {
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
      if (this.#socket !== socket) return;
      // Before a program can ask for them.
      if (this.#colors) this.send({ type: "colors", ...this.#colors });
      this.send(this.#first());
    };
    socket.onmessage = (event: MessageEvent) => {
      if (this.#socket !== socket) return;
      this.#heard = Date.now();
      this.#due = null;
      if (this.#isSilent) {
        this.#isSilent = false;
        this.#listener.state("open", "", 0);
      }
      this.#message(event.data as string | ArrayBuffer);
    };
    socket.onclose = (event: CloseEvent) => {
      if (this.#socket === socket) this.#closed(event.code, event.reason);
    };
  }

  /** Leaves for good. */
  stop(): void {
    this.#ended = true;
    clearTimeout(this.#timer);
    clearInterval(this.#watch);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
  }

  /** Does not wait for the next attempt; makes sure that what seems open is. */
  hurry(): void {
    if (this.#ended) return;
    if (this.#timer !== undefined) this.start();
    else if (this.isOpen) this.#ask();
  }

  send(frame: Record<string, unknown>): void {
    if (this.isOpen) this.#socket?.send(JSON.stringify(frame));
  }

  /** False when so much waits already that this is not typed at all. */
  input(data: Uint8Array): boolean {
    if (this.#outbox.length + data.length > MOST_WAITING) return false;
    this.#outbox.push(data);
    this.#flush();
    return true;
  }

  ack(offset: number): void {
    if (this.isOpen) this.#socket?.send(ackFrame(offset));
  }

  resize(cols: number, rows: number): void {
    this.#size = { cols, rows };
    this.send({ type: "resize", cols, rows });
  }

  /** Tells how the terminal looks, for programs that ask. */
  colors(colors: Colors): void {
    this.#colors = colors;
    this.send({ type: "colors", ...colors });
  }

  /** What is drawn: a connection that breaks goes on from here. */
  reached(offset: number): void {
    if (this.#place) this.#place.offset = offset;
  }

  #first(): Record<string, unknown> {
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

  #message(data: string | ArrayBuffer): void {
    if (typeof data !== "string") {
      const frame = readBinary(data);
      if (!frame) return;
      const end = frame.offset + (frame.kind === "output" ? frame.data.length : 0);
      this.reached(end);
      this.#listener.bytes(frame);
      return;
    }
    const frame = readText(data);
    if (!frame) return;
    if (frame.type === "session") {
      this.#attempt = 0;
      const { sessionId, epoch, client } = frame;
      const same = this.#place?.client === client && this.#place.sessionId === sessionId;
      if (!same) {
        if (this.#place && this.#outbox.length > 0) this.#listener.untyped();
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
      if (!same) this.#flush();
      this.#listener.state("open", "", 0);
    } else if (frame.type === "input_ack") {
      if (this.#expectsNumber) {
        this.#expectsNumber = false;
        this.#outbox.restart(frame.number);
      } else {
        this.#outbox.acknowledge(frame.number);
      }
      this.#flush();
    }
    this.#listener.frame(frame);
  }

  #flush(): void {
    if (!this.isOpen || !this.#place || this.#expectsNumber) return;
    for (const frame of this.#outbox.frames()) this.#socket?.send(frame);
  }

  /** A peer that went away without a word is noticed by its silence. */
  #look(): void {
    const now = Date.now();
    if (this.#due !== null && now >= this.#due) {
      const socket = this.#socket;
      this.#closed(1006, "");
      socket?.close();
    } else if (this.#due !== null && this.#place !== null && this.isOpen && !this.#isSilent && this.#due - now <= PONG_WITHIN - SILENT) {
      this.#isSilent = true;
      this.#listener.state("silent", "", 0);
    } else if (this.isOpen && now - this.#heard >= QUIET) {
      this.#ask();
    }
  }

  #ask(): void {
    if (this.#due !== null) return;
    this.#due = Date.now() + PONG_WITHIN;
    this.send({ type: "ping" });
  }

  #closed(code: number, reason: string): void {
    this.#socket = null;
    this.#due = null;
    this.#isSilent = false;
    clearInterval(this.#watch);
    if (this.#ended) return;
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

function openSocket(): Socket {
  const url = new URL("terminal", document.baseURI);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.hash = "";
  return new WebSocket(url, SUBPROTOCOL);
}

/** More than this is not kept for a server that is away. */
const MOST_WAITING = 8 * 1024 * 1024;
const LOOK_EVERY = 1_000;
const QUIET = 5_000;
const ANSWER_WITHIN = 15_000;
const PONG_WITHIN = 8_000;
/** After so long without an answer it is said that the server does not respond. */
const SILENT = 3_000;
