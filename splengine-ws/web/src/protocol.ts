// What stands in frames, and how. Nothing here touches the page.

export const SUBPROTOCOL = "spl.term.v1";

export type Access = "view" | "control";

export interface Client {
  id: string;
  user: string;
  access: Access;
  you: boolean;
}

export type ServerFrame =
  | {
      type: "session";
      sessionId: string;
      cols: number;
      rows: number;
      access: Access;
      epoch: string;
      offset: number;
      client: string;
      name: string | null;
      user: string;
      title: string;
      state: string;
      restored: boolean;
    }
  | { type: "size"; cols: number; rows: number }
  | { type: "title"; title: string }
  | { type: "presence"; clients: Client[] }
  | { type: "control"; holder: string | null; you: boolean }
  | { type: "input_ack"; number: number }
  | { type: "saved"; savedId: string; name: string | null }
  | { type: "exit"; exitCode: number; signal: string | null }
  | { type: "notice"; kind: string; seconds?: number; reason?: string }
  | { type: "error"; error: string; code?: string }
  | { type: "clients"; count: number }
  | { type: "pong" };

export type BinaryFrame =
  | { kind: "output"; offset: number; data: Uint8Array }
  | { kind: "snapshot"; offset: number; cols: number; rows: number; data: Uint8Array };

const OUTPUT = 0x01;
const SNAPSHOT = 0x02;
const INPUT = 0x11;
const ACK = 0x12;

/** Reads a text frame; null for what is none that we know. */
export function readText(text: string): ServerFrame | null {
  try {
    const value: unknown = JSON.parse(text);
    const known = typeof value === "object" && value !== null && "type" in value;
    return known ? (value as ServerFrame) : null;
  } catch {
    return null;
  }
}

/** Reads a binary frame; null for what is none that we know. */
export function readBinary(buffer: ArrayBuffer): BinaryFrame | null {
  const view = new DataView(buffer);
  if (buffer.byteLength < 9) return null;
  const offset = Number(view.getBigUint64(1));
  switch (view.getUint8(0)) {
    case OUTPUT:
      return { kind: "output", offset, data: new Uint8Array(buffer, 9) };
    case SNAPSHOT: {
      if (buffer.byteLength < 13) return null;
      const [cols, rows] = [view.getUint16(9), view.getUint16(11)];
      return { kind: "snapshot", offset, cols, rows, data: new Uint8Array(buffer, 13) };
    }
    default:
      return null;
  }
}

export function inputFrame(number: number, data: Uint8Array): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(9 + data.length);
  const view = new DataView(frame.buffer);
  view.setUint8(0, INPUT);
  view.setBigUint64(1, BigInt(number));
  frame.set(data, 9);
  return frame;
}

export function ackFrame(offset: number): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(9);
  const view = new DataView(frame.buffer);
  view.setUint8(0, ACK);
  view.setBigUint64(1, BigInt(offset));
  return frame;
}

/** Input that was sent, or waits to be, until the server says that it has come. */
export class Outbox {
  #first = 0;
  #bytes: Uint8Array = new Uint8Array(0);
  #sent = 0;

  /** How much is not known to have come. */
  get length(): number {
    return this.#bytes.length;
  }

  push(data: Uint8Array): void {
    const all = new Uint8Array(this.#bytes.length + data.length);
    all.set(this.#bytes);
    all.set(data, this.#bytes.length);
    this.#bytes = all;
  }

  /** Everything below `number` has come. */
  acknowledge(number: number): void {
    const come = Math.min(Math.max(number - this.#first, 0), this.#bytes.length);
    this.#bytes = this.#bytes.slice(come);
    this.#first += come;
    this.#sent = Math.max(this.#sent - come, 0);
  }

  /** On a new connection, which goes on at `number`: what did not come is sent again. */
  restart(number: number): void {
    if (this.#bytes.length === 0) this.#first = number;
    else this.acknowledge(number);
    this.#sent = 0;
  }

  /** Another client altogether. */
  clear(): void {
    this.#first = 0;
    this.#bytes = new Uint8Array(0);
    this.#sent = 0;
  }

  /** The frames to send now: no more than a window of what is on its way. */
  *frames(): Generator<Uint8Array<ArrayBuffer>> {
    while (this.#sent < Math.min(this.#bytes.length, WINDOW)) {
      const end = Math.min(this.#sent + PIECE, this.#bytes.length, WINDOW);
      yield inputFrame(this.#first + this.#sent, this.#bytes.slice(this.#sent, end));
      this.#sent = end;
    }
  }
}

const PIECE = 32 * 1024;
const WINDOW = 256 * 1024;

/** What to do about a connection that closed with this code. */
export function afterClose(code: number): "again" | "login" | "over" {
  if (code === 4401) return "login";
  return [1001, 1005, 1006, 1011, 1012, 1013].includes(code) ? "again" : "over";
}

/** How long to wait before the next attempt, in milliseconds: ever longer, and never all at once. */
export function backoff(attempt: number, random: () => number = Math.random): number {
  const most = Math.min(500 * 2 ** attempt, 10_000);
  return most / 2 + (random() * most) / 2;
}
