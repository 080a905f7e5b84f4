export const SUBPROTOCOL = "spl.term.v1";
const OUTPUT = 0x01;
const SNAPSHOT = 0x02;
const INPUT = 0x11;
const ACK = 0x12;
export function readText(text) {
    try {
        const value = JSON.parse(text);
        const known = typeof value === "object" && value !== null && "type" in value;
        return known ? value : null;
    }
    catch {
        return null;
    }
}
export function readBinary(buffer) {
    const view = new DataView(buffer);
    if (buffer.byteLength < 9)
        return null;
    const offset = Number(view.getBigUint64(1));
    switch (view.getUint8(0)) {
        case OUTPUT:
            return { kind: "output", offset, data: new Uint8Array(buffer, 9) };
        case SNAPSHOT: {
            if (buffer.byteLength < 13)
                return null;
            const [cols, rows] = [view.getUint16(9), view.getUint16(11)];
            return { kind: "snapshot", offset, cols, rows, data: new Uint8Array(buffer, 13) };
        }
        default:
            return null;
    }
}
export function inputFrame(number, data) {
    const frame = new Uint8Array(9 + data.length);
    const view = new DataView(frame.buffer);
    view.setUint8(0, INPUT);
    view.setBigUint64(1, BigInt(number));
    frame.set(data, 9);
    return frame;
}
export function ackFrame(offset) {
    const frame = new Uint8Array(9);
    const view = new DataView(frame.buffer);
    view.setUint8(0, ACK);
    view.setBigUint64(1, BigInt(offset));
    return frame;
}
export class Outbox {
    #first = 0;
    #bytes = new Uint8Array(0);
    #sent = 0;
    get length() {
        return this.#bytes.length;
    }
    push(data) {
        const all = new Uint8Array(this.#bytes.length + data.length);
        all.set(this.#bytes);
        all.set(data, this.#bytes.length);
        this.#bytes = all;
    }
    acknowledge(number) {
        const come = Math.min(Math.max(number - this.#first, 0), this.#bytes.length);
        this.#bytes = this.#bytes.slice(come);
        this.#first += come;
        this.#sent = Math.max(this.#sent - come, 0);
    }
    restart(number) {
        if (this.#bytes.length === 0)
            this.#first = number;
        else
            this.acknowledge(number);
        this.#sent = 0;
    }
    clear() {
        this.#first = 0;
        this.#bytes = new Uint8Array(0);
        this.#sent = 0;
    }
    *frames() {
        while (this.#sent < Math.min(this.#bytes.length, WINDOW)) {
            const end = Math.min(this.#sent + PIECE, this.#bytes.length, WINDOW);
            yield inputFrame(this.#first + this.#sent, this.#bytes.slice(this.#sent, end));
            this.#sent = end;
        }
    }
}
const PIECE = 32 * 1024;
const WINDOW = 256 * 1024;
export function afterClose(code) {
    if (code === 4401)
        return "login";
    return [1001, 1005, 1006, 1011, 1012, 1013].includes(code) ? "again" : "over";
}
export function backoff(attempt, random = Math.random) {
    const most = Math.min(500 * 2 ** attempt, 10_000);
    return most / 2 + (random() * most) / 2;
}
