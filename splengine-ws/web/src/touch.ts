// Keys that a phone's keyboard lacks.

import { find, make } from "./dom.js";

const KEYS: [string, string, string][] = [
  ["Esc", "Esc", "\x1b"],
  ["Tab", "Tab", "\t"],
  ["Ctrl", "Ctrl, with the next key", ""],
  ["←", "Left", "D"],
  ["↑", "Up", "A"],
  ["↓", "Down", "B"],
  ["→", "Right", "C"],
  ["|", "Bar", "|"],
  ["/", "Slash", "/"],
  ["-", "Dash", "-"],
  ["~", "Tilde", "~"],
];

/** What an arrow sends: programs choose between two forms, and with Control there is a third. */
export function arrow(letter: string, application: boolean, control: boolean): string {
  if (control) return `\x1b[1;5${letter}`;
  return `\x1b${application ? "O" : "["}${letter}`;
}

/** The character that Control makes of a key, or the key where it makes none. */
export function controlled(code: number): number {
  if (code === 0x20) return 0;
  if (code === 0x2f) return 0x1f;
  if (code === 0x3f) return 0x7f;
  return code >= 0x40 && code < 0x7f ? code & 0x1f : code;
}

/**
 * Adds the keys; gives what turns the next letter into its control character when that is on.
 * `application`: whether the program wants the arrows in their other form.
 */
export function touchKeys(
  type: (text: string) => void,
  application: () => boolean,
): (data: Uint8Array) => Uint8Array {
  let control = false;
  const buttons = KEYS.map(([face, label, sends]) => {
    const button = make("button", { type: "button", label }, face);
    // Keeps the keyboard of the phone open.
    button.addEventListener("pointerdown", (event) => event.preventDefault());
    button.addEventListener("click", () => {
      if (sends === "") return set(!control);
      if (!/^[A-D]$/.test(sends)) return type(sends);
      const text = arrow(sends, application(), control);
      set(false);
      type(text);
    });
    return button;
  });
  const toggle = buttons[2];
  const set = (on: boolean) => {
    control = on;
    toggle?.setAttribute("aria-pressed", String(on));
  };
  set(false);
  find("keys").replaceChildren(...buttons);
  return (data) => {
    const code = data[0];
    if (!control || data.length !== 1 || code === undefined) return data;
    set(false);
    return Uint8Array.of(controlled(code));
  };
}
