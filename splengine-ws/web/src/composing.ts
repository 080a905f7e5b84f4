// Words that a soft keyboard, or an input method, puts together before it commits them.

/** The keys that do not end a composition: Shift, Control, Alt, Caps Lock, and those of the input method. */
const GO_ON = [16, 17, 18, 20, 229];

/** What is left to type of a composition, of which `sent` was typed already. */
export function leftOf(committed: string, sent: string): string {
  return committed.startsWith(sent) ? committed.slice(sent.length) : "";
}

/**
 * Keeps xterm.js 6.0.0 from typing a composed word twice: when a key ends it, and then again when the
 * composition itself ends.
 */
export function composeOnce(place: HTMLElement, type: (text: string) => void): void {
  let composed: string | null = null;
  let sent: string | null = null;
  const listen = <K extends keyof HTMLElementEventMap>(name: K, act: (event: HTMLElementEventMap[K]) => void) =>
    place.addEventListener(name, act, { capture: true });
  listen("compositionstart", () => {
    composed = "";
    sent = null;
  });
  listen("compositionupdate", (event) => (composed = event.data));
  listen("keydown", (event) => {
    if (composed !== null && sent === null && !GO_ON.includes(event.keyCode)) sent = composed;
  });
  listen("compositionend", (event) => {
    composed = null;
    if (sent === null) return;
    event.stopPropagation();
    const left = leftOf(event.data, sent);
    sent = null;
    if (left !== "") type(left);
  });
}
