// The terminal itself: xterm.js, fed and read so that it is one of several on a session.

import type { BinaryFrame } from "./protocol.js";
import { Composing } from "./composing.js";
import { type Cell, fittingFont, type Measure, room } from "./fit.js";
import { parseOsc52 } from "./osc52.js";
import { cleanPaste } from "./paste.js";
import { Renderer } from "./renderer.js";
import { onSettingsChange, type Settings, settings } from "./settings.js";
import { swipeScroll } from "./swipe.js";
import { onThemeChange, terminalTheme, theme } from "./theme.js";

export interface Hands {
  /** `byHand`: a person typed or pasted it, where else a mouse or a window tells of itself. */
  input(data: Uint8Array, byHand: boolean): void;
  ack(offset: number): void;
  /** The window has room for so much. */
  room(cols: number, rows: number): void;
  /** Whether a key is meant for the page, not for the terminal. */
  isShortcut(event: KeyboardEvent): boolean;
  /** Something was typed by one who may not. */
  refused(): void;
  /** Something was dropped that can't be typed. */
  undroppable(): void;
  /** The program puts this into the clipboard. */
  copied(text: string): void;
}

const encoder = new TextEncoder();

export class Screen {
  readonly term: InstanceType<typeof Terminal>;
  #fit: InstanceType<typeof FitAddon.FitAddon>;
  #place: HTMLElement;
  #hands: Hands;
  #inControl = false;
  #canType = false;
  #drawn = 0;
  #acked = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #settle: ReturnType<typeof setTimeout> | undefined;
  /** Counts what makes older offsets meaningless: another session, another snapshot. */
  #generation = 0;
  #fontSize = settings().fontSize;
  #measure: Measure = measurer(() => this.#renderer.isWebgl);
  #renderer: Renderer;
  /** Something was drawn. */
  #seen: () => void = () => {};

  constructor(place: HTMLElement, hands: Hands) {
    this.#place = place;
    this.#hands = hands;
    this.term = new Terminal({
      allowProposedApi: true,
      cursorBlink: true,
      fontFamily: FONT,
      fontSize: this.#fontSize,
      lineHeight: LINE_HEIGHT,
      minimumContrastRatio: 4.5,
      scrollback: 5000,
      theme: terminalTheme(theme()),
    });
    this.#fit = new FitAddon.FitAddon();
    this.term.loadAddon(this.#fit);
    this.term.loadAddon(new WebLinksAddon.WebLinksAddon());
    this.term.loadAddon(new Unicode11Addon.Unicode11Addon());
    this.term.unicode.activeVersion = "11";
    this.#leaveAnswersToTheServer();
    this.term.open(place);
    this.#renderer = new Renderer(this.term, () => this.layout(), new Promise((seen) => (this.#seen = seen)));
    this.#filterPastes();
    swipeScroll(place, this.term);
    const composing = this.term.textarea && new Composing(this.term.textarea, (text) => this.type(text));
    this.term.onData((data) => {
      const typed = composing?.typed(data) ?? data;
      if (typed !== "") this.#type(encoder.encode(typed), !REPORTS.test(typed));
    });
    this.term.onBinary((data) => this.#type(Uint8Array.from(data, (char) => char.charCodeAt(0)), false));
    this.term.parser.registerOscHandler(52, (data) => {
      const text = parseOsc52(data);
      if (text !== null) hands.copied(text);
      return true;
    });
    this.term.attachCustomKeyEventHandler((event) => {
      if (hands.isShortcut(event)) return false;
      const types = event.type === "keydown" && !event.ctrlKey && !event.metaKey && event.key.length === 1;
      if (types && !this.#canType) hands.refused();
      return composing?.key(event) ?? true;
    });
    onThemeChange((of) => (this.term.options.theme = terminalTheme(of)));
    onSettingsChange((chosen) => void this.#choose(chosen));
    void this.#choose(settings());
    new ResizeObserver(() => this.layout()).observe(place);
  }

  /** What the visible lines say. */
  text(): string {
    const buffer = this.term.buffer.active;
    const lines: string[] = [];
    for (let y = 0; y < this.term.rows; y += 1) {
      lines.push(buffer.getLine(buffer.baseY + y)?.translateToString(true) ?? "");
    }
    return lines.join("\n").trimEnd();
  }

  /** Makes place for another session. */
  clear(): void {
    this.#forget(0);
    // Behind what is not drawn yet of the one before.
    this.term.write(Uint8Array.of(0x1b, 0x63));
  }

  bytes(frame: BinaryFrame): void {
    let end = frame.offset;
    if (frame.kind === "snapshot") {
      this.size(frame.cols, frame.rows);
      this.#forget(end);
    } else {
      end += frame.data.length;
    }
    const generation = this.#generation;
    this.term.write(frame.data, () => {
      this.#seen();
      if (generation === this.#generation) this.#reached(end);
    });
  }

  size(cols: number, rows: number): void {
    if (cols !== this.term.cols || rows !== this.term.rows) this.term.resize(cols, rows);
    this.layout();
  }

  rights(canType: boolean, inControl: boolean): void {
    this.#canType = canType;
    if (inControl && !this.#inControl) this.term.options.fontSize = this.#fontSize;
    this.#inControl = inControl;
    this.#place.classList.toggle("follows", !inControl);
    this.term.options.disableStdin = !canType;
    this.term.options.cursorStyle = canType ? "block" : "underline";
    this.layout();
  }

  /** Types what did not come from the keyboard. */
  type(text: string): void {
    this.#type(encoder.encode(text), true);
  }

  /** Tells what there is room for, and shrinks the letters where the session has another size. */
  layout(): void {
    const { clientWidth: wide, clientHeight: high } = this.#place;
    if (wide === 0 || high === 0) return;
    // Another way of drawing has cells of another size: the size asked for is the one that stays.
    const isFull = this.term.options.fontSize === this.#fontSize && !this.#renderer.isChanging;
    const exact = isFull ? this.#fit.proposeDimensions() : undefined;
    const { cols, rows } = exact && Number.isFinite(exact.cols) && Number.isFinite(exact.rows)
      ? exact
      : room(this.#measure, wide - SCROLLBAR, high, this.#fontSize, devicePixelRatio);
    this.#hands.room(Math.max(cols, 2), Math.max(rows, 1));
    clearTimeout(this.#settle);
    // In control, the session takes the size of the window, and a moment for it.
    if (this.#inControl) this.#settle = setTimeout(() => this.#shrink(), SETTLE);
    else this.#shrink();
  }

  async #choose({ fontSize, screenReader, renderer }: Settings): Promise<void> {
    this.term.options.screenReaderMode = screenReader;
    await this.#renderer.use(renderer === "auto");
    if (fontSize !== this.#fontSize) {
      this.#fontSize = fontSize;
      this.term.options.fontSize = fontSize;
    }
    this.layout();
  }

  /** Pastes nothing but text, wherever it comes from: the keyboard, a menu, or what is dropped here. */
  #filterPastes(): void {
    const paste = (event: Event, data: DataTransfer | null) => {
      event.preventDefault();
      event.stopPropagation();
      if (!this.#canType) return this.#hands.refused();
      const text = cleanPaste(data?.getData("text/plain") ?? "");
      if (text !== "") this.term.paste(text);
      else if (data && data.files.length > 0) this.#hands.undroppable();
      this.term.focus();
    };
    this.#place.addEventListener("paste", (event) => paste(event, event.clipboardData), { capture: true });
    // Else the browser leaves the page for a file that is dropped on it.
    this.#place.addEventListener("dragover", (event) => event.preventDefault());
    this.#place.addEventListener("drop", (event) => paste(event, event.dataTransfer), { capture: true });
  }

  #shrink(): void {
    const { clientWidth: wide, clientHeight: high } = this.#place;
    if (wide === 0 || high === 0) return;
    const { cols, rows } = this.term;
    const size = fittingFont(this.#measure, wide, high, cols, rows, this.#fontSize, devicePixelRatio);
    if (this.term.options.fontSize !== size) this.term.options.fontSize = size;
  }

  #forget(offset: number): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#generation += 1;
    this.#drawn = this.#acked = offset;
  }

  #type(data: Uint8Array, byHand: boolean): void {
    if (this.#canType) this.#hands.input(data, byHand);
  }

  #reached(offset: number): void {
    this.#drawn = Math.max(this.#drawn, offset);
    if (this.#drawn - this.#acked >= ACK_BYTES) this.#acknowledge();
    else this.#timer ??= setTimeout(() => this.#acknowledge(), ACK_EVERY);
  }

  #acknowledge(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#acked = this.#drawn;
    this.#hands.ack(this.#drawn);
  }

  /** Programs' questions are answered by the server, once, however many look on. */
  #leaveAnswersToTheServer(): void {
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
    for (const code of [4, 10, 11, 12]) parser.registerOscHandler(code, (data) => data.includes("?"));
  }
}

/** A mouse's moves, and a window's gain and loss of the keyboard. */
const REPORTS = /^\x1b\[(?:<|M|[IO]$)/;
const ACK_BYTES = 32 * 1024;
const ACK_EVERY = 50;
/** How long the server may take to give the session the size of the window, in milliseconds. */
const SETTLE = 600;
const SCROLLBAR = 14;
/** With less, the page's elements cut off what a font draws below the row: the underscore. */
const LINE_HEIGHT = 1.1;
const FONT = 'ui-monospace, "SFMono-Regular", "JetBrains Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace';

/** Measures as xterm.js does. With WebGL, a cell is whole pixels of the device wide. */
function measurer(isWebgl: () => boolean): Measure {
  const context = document.createElement("canvas").getContext("2d");
  const known = new Map<number, Cell>();
  const letter = (font: number): Cell => {
    const cell = known.get(font);
    if (cell) return cell;
    if (!context) return { wide: font * 0.6, high: font * 1.2 };
    context.font = `${font}px ${FONT}`;
    const { width, fontBoundingBoxAscent, fontBoundingBoxDescent } = context.measureText("W");
    const measured = { wide: width, high: fontBoundingBoxAscent + fontBoundingBoxDescent };
    known.set(font, measured);
    return measured;
  };
  return (font) => {
    const { wide, high } = letter(font);
    const ratio = devicePixelRatio;
    return {
      wide: isWebgl() ? Math.floor(wide * ratio) / ratio : wide,
      high: Math.floor(Math.ceil(high * ratio) * LINE_HEIGHT) / ratio,
    };
  };
}
