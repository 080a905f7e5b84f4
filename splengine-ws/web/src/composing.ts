// Words that a soft keyboard, or an input method, puts together before it commits them.

/** The keys that do not end a composition: Shift, Control, Alt, Caps Lock, and those of the input method. */
const GO_ON = [16, 17, 18, 20, 229];
/** What stands for every key of a soft keyboard. */
const UNIDENTIFIED = 229;

/** What is left to type of a composition, of which `sent` was typed already. */
export function leftOf(committed: string, sent: string): string {
  return committed.startsWith(sent) ? committed.slice(sent.length) : "";
}

/** The keys that make `after` of `before`: deletions from its end, and then what is new. */
export function keysBetween(before: string, after: string): string {
  const [from, to] = [[...before], [...after]];
  let same = 0;
  while (same < from.length && from[same] === to[same]) same += 1;
  return "\x7f".repeat(from.length - same) + to.slice(same).join("");
}

/**
 * Types what is composed once and whole, where xterm.js 6.0.0 types a word twice when a key ends it
 * and then the composition itself ends, and reads what it types by timers, which on a slow machine
 * come behind the next key: then it loses letters, or doubles them.
 */
export class Composing {
  #area: HTMLTextAreaElement;
  #type: (text: string) => void;
  /** Where the composition begins in the text area; null when nothing is composed. */
  #start: number | null = null;
  /** Where in the text area begins what is not typed yet; null when nothing waits. */
  #from: number | null = null;
  /** xterm.js types what was composed last by a timer, which has not come yet. */
  #isWaiting = false;
  /** Number of compositions that have ended, by which a late timer knows that it is an old one's. */
  #ended = 0;
  /** What a key has ended of the composition, and was typed. */
  #sent: string | null = null;
  /** What xterm.js types next is this. */
  #next: string | null = null;
  /** What stood in the text area before a key that has no name, until it is let go. */
  #before: string | null = null;

  constructor(area: HTMLTextAreaElement, type: (text: string) => void) {
    this.#area = area;
    this.#type = type;
    // The text area's listeners are xterm.js's: before them, and behind them.
    const place = area.parentElement ?? area;
    place.addEventListener("compositionstart", () => this.#starts(), { capture: true });
    place.addEventListener("compositionend", (event) => this.#ends(event), { capture: true });
    place.addEventListener("compositionend", () => this.#waits());
    place.addEventListener("input", () => this.#changed(), { capture: true });
    place.addEventListener("keyup", () => (this.#before = null), { capture: true });
  }

  /** Hears of a key just before xterm.js acts on it; false if it is not to. */
  key(event: KeyboardEvent): boolean {
    if (event.type !== "keydown") return true;
    this.#before = null;
    const isComposed = this.#start !== null && this.#sent === null;
    if (event.keyCode === UNIDENTIFIED && !isComposed && !this.#isWaiting) {
      // What it does is seen in the text area at once, not by a timer behind the next one.
      this.#before = this.#area.value;
      return false;
    }
    if (GO_ON.includes(event.keyCode) || !(isComposed || this.#isWaiting)) return true;
    // xterm.js types what is composed before the key, at once.
    const next = this.#area.value.slice(this.#from ?? this.#start ?? 0);
    // Of nothing, xterm.js may type nothing: what it types next would be the key.
    this.#next = next === "" ? null : next;
    queueMicrotask(() => (this.#next = null));
    if (isComposed) this.#sent = this.#area.value.slice(this.#start ?? 0);
    this.#isWaiting = false;
    this.#from = null;
    return true;
  }

  /** What is typed, where xterm.js would type `data`. */
  typed(data: string): string {
    const next = this.#next;
    this.#next = null;
    if (next !== null) return next;
    // Its timer has come, and the next key may come before the one that was set behind it.
    if (this.#isWaiting && data === this.#waiting()) this.#isTyped();
    return data;
  }

  #starts(): void {
    this.#start = this.#area.value.length;
    this.#from ??= this.#start;
    this.#sent = null;
    this.#before = null;
  }

  #ends(event: CompositionEvent): void {
    this.#start = null;
    if (this.#sent === null) return;
    event.stopPropagation();
    const left = leftOf(event.data, this.#sent);
    this.#sent = null;
    this.#from = null;
    if (left !== "") this.#type(left);
  }

  /** Behind xterm.js, which has set its timer: this one comes next. */
  #waits(): void {
    this.#isWaiting = true;
    this.#ended += 1;
    const ended = this.#ended;
    setTimeout(() => {
      if (this.#isWaiting && ended === this.#ended) this.#isTyped();
    }, 0);
  }

  /** What xterm.js's timer will type. */
  #waiting(): string {
    return this.#area.value.slice(this.#from ?? 0, this.#start ?? undefined);
  }

  #isTyped(): void {
    this.#isWaiting = false;
    this.#from = this.#start;
  }

  #changed(): void {
    if (this.#before === null || this.#start !== null) return;
    const before = this.#before;
    this.#before = this.#area.value;
    const keys = keysBetween(before, this.#before);
    if (keys !== "") this.#type(keys);
  }
}
