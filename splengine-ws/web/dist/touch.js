import { find, make } from "./dom.js";
const KEYS = [
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
export function arrow(letter, application, control) {
    if (control)
        return `\x1b[1;5${letter}`;
    return `\x1b${application ? "O" : "["}${letter}`;
}
export function controlled(code) {
    if (code === 0x20)
        return 0;
    if (code === 0x2f)
        return 0x1f;
    if (code === 0x3f)
        return 0x7f;
    return code >= 0x40 && code < 0x7f ? code & 0x1f : code;
}
export function touchKeys(type, application) {
    let control = false;
    const buttons = KEYS.map(([face, label, sends]) => {
        const button = make("button", { type: "button", label }, face);
        button.addEventListener("pointerdown", (event) => event.preventDefault());
        button.addEventListener("click", () => {
            if (sends === "")
                return set(!control);
            if (!/^[A-D]$/.test(sends))
                return type(sends);
            const text = arrow(sends, application(), control);
            set(false);
            type(text);
        });
        return button;
    });
    const toggle = buttons[2];
    const set = (on) => {
        control = on;
        toggle?.setAttribute("aria-pressed", String(on));
    };
    set(false);
    find("keys").replaceChildren(...buttons);
    return (data) => {
        const code = data[0];
        if (!control || data.length !== 1 || code === undefined)
            return data;
        set(false);
        return Uint8Array.of(controlled(code));
    };
}
