// The terminal itself: xterm.js, fed and read so that it is one of several on a session.
import { onThemeChange, terminalTheme, theme } from "./theme.js";
const encoder = new TextEncoder();
export class Screen {
    term;
    search;
    #fit;
    #place;
    #hands;
    #inControl = false;
    #canType = false;
    #drawn = 0;
    #acked = 0;
    #timer;
    constructor(place, hands) {
        this.#place = place;
        this.#hands = hands;
        this.term = new Terminal({
            allowProposedApi: true,
            cursorBlink: true,
            fontFamily: 'ui-monospace, "SFMono-Regular", "JetBrains Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace',
            fontSize: matchMedia("(max-width: 640px)").matches ? 12 : 14,
            scrollback: 5000,
            theme: terminalTheme(theme()),
        });
        this.#fit = new FitAddon.FitAddon();
        this.search = new SearchAddon.SearchAddon();
        this.term.loadAddon(this.#fit);
        this.term.loadAddon(this.search);
        this.term.loadAddon(new WebLinksAddon.WebLinksAddon());
        this.term.loadAddon(new Unicode11Addon.Unicode11Addon());
        this.term.unicode.activeVersion = "11";
        this.#leaveAnswersToTheServer();
        this.term.open(place);
        this.term.onData((data) => this.#type(encoder.encode(data)));
        this.term.onBinary((data) => this.#type(Uint8Array.from(data, (char) => char.charCodeAt(0))));
        this.term.attachCustomKeyEventHandler((event) => !hands.isShortcut(event));
        onThemeChange((of) => (this.term.options.theme = terminalTheme(of)));
        new ResizeObserver(() => this.layout()).observe(place);
    }
    /** What the visible lines say. */
    text() {
        const buffer = this.term.buffer.active;
        const lines = [];
        for (let y = 0; y < this.term.rows; y += 1) {
            lines.push(buffer.getLine(buffer.baseY + y)?.translateToString(true) ?? "");
        }
        return lines.join("\n").trimEnd();
    }
    bytes(frame) {
        let end = frame.offset;
        if (frame.kind === "snapshot") {
            this.size(frame.cols, frame.rows);
            this.#drawn = this.#acked = end;
        }
        else {
            end += frame.data.length;
        }
        this.term.write(frame.data, () => this.#reached(end));
    }
    size(cols, rows) {
        if (cols !== this.term.cols || rows !== this.term.rows)
            this.term.resize(cols, rows);
        this.layout();
    }
    rights(canType, inControl) {
        this.#canType = canType;
        this.#inControl = inControl;
        this.term.options.disableStdin = !canType;
        this.term.options.cursorStyle = canType ? "block" : "underline";
        this.layout();
    }
    /** Types what did not come from the keyboard. */
    type(text) {
        this.#type(encoder.encode(text));
    }
    /** In control, asks for the size of the window; otherwise shrinks what does not fit. */
    layout() {
        if (this.#place.clientWidth === 0)
            return;
        const element = this.term.element;
        if (!element)
            return;
        const room = this.#fit.proposeDimensions();
        if (room && Number.isFinite(room.cols) && Number.isFinite(room.rows)) {
            this.#hands.room(Math.max(room.cols, 2), Math.max(room.rows, 1));
        }
        const screen = element.querySelector(".xterm-screen");
        const wide = screen?.offsetWidth ?? 0;
        const high = screen?.offsetHeight ?? 0;
        const scale = this.#inControl || wide === 0 || high === 0
            ? 1
            : Math.min(1, this.#place.clientWidth / wide, this.#place.clientHeight / high);
        element.style.transform = scale < 1 ? `scale(${scale})` : "";
    }
    #type(data) {
        if (this.#canType)
            this.#hands.input(data);
    }
    #reached(offset) {
        this.#drawn = Math.max(this.#drawn, offset);
        if (this.#drawn - this.#acked >= ACK_BYTES)
            this.#acknowledge();
        else
            this.#timer ??= setTimeout(() => this.#acknowledge(), ACK_EVERY);
    }
    #acknowledge() {
        clearTimeout(this.#timer);
        this.#timer = undefined;
        this.#acked = this.#drawn;
        this.#hands.ack(this.#drawn);
    }
    /** Programs' questions are answered by the server, once, however many look on. */
    #leaveAnswersToTheServer() {
        const parser = this.term.parser;
        const asks = () => true;
        parser.registerCsiHandler({ final: "c" }, asks);
        parser.registerCsiHandler({ prefix: ">", final: "c" }, asks);
        parser.registerCsiHandler({ prefix: "=", final: "c" }, asks);
        parser.registerCsiHandler({ final: "n" }, asks);
        parser.registerCsiHandler({ prefix: "?", final: "n" }, asks);
        parser.registerCsiHandler({ prefix: ">", final: "q" }, asks);
        parser.registerCsiHandler({ intermediates: "$", final: "p" }, asks);
        parser.registerCsiHandler({ prefix: "?", intermediates: "$", final: "p" }, asks);
        parser.registerDcsHandler({ intermediates: "$", final: "q" }, asks);
        for (const code of [4, 10, 11, 12])
            parser.registerOscHandler(code, (data) => data.includes("?"));
    }
}
const ACK_BYTES = 32 * 1024;
const ACK_EVERY = 50;
