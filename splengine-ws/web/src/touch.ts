// Keys that a phone's keyboard lacks.

import { find, make } from "./dom.js";

const KEYS: [string, string, string][] = [
  ["Esc", "Escape", "\x1b"],
  ["Tab", "Tab", "\t"],
  ["Ctrl", "Control, with the next key", ""],
  ["←", "Left", "\x1b[D"],
  ["↑", "Up", "\x1b[A"],
  ["↓", "Down", "\x1b[B"],
  ["→", "Right", "\x1b[C"],
  ["|", "Bar", "|"],
  ["/", "Slash", "/"],
  ["-", "Dash", "-"],
];

/** Adds the keys; gives what turns the next letter into its control character when that is on. */
export function touchKeys(type: (text: string) => void): (data: Uint8Array) => Uint8Array {
  let control = false;
  const buttons = KEYS.map(([face, label, sends]) => {
    const button = make("button", { type: "button", label }, face);
    // Keeps the keyboard of the phone open.
    button.addEventListener("pointerdown", (event) => event.preventDefault());
    button.addEventListener("click", () => {
      if (sends) type(sends);
      else set(!control);
    });
    return button;
  });
  const toggle = buttons[2];
  const set = (on: boolean) => {
    control = on;
    toggle?.setAttribute("aria-pressed", String(on));
  };
  find("keys").replaceChildren(...buttons);
  return (data) => {
    const code = data[0];
    if (!control || data.length !== 1 || code === undefined) return data;
    set(false);
    return Uint8Array.of(code & 0x1f);
  };
}
