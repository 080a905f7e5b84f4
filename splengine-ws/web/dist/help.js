import { dialog } from "./dialogs.js";
import { make } from "./dom.js";
const KEYS = [
    ["Ctrl Shift F", "find in the terminal"],
    ["Ctrl Shift L", "list of sessions; Esc goes back"],
    ["Ctrl Shift Y", "new session"],
    ["Ctrl Shift E", "dark or light"],
    ["Ctrl Shift C", "copy the selection; Ctrl Insert, too"],
    ["Ctrl Shift V", "paste; Shift Insert, too"],
    ["Ctrl Shift H", "this help"],
    ["Shift PageUp", "scroll back; Shift PageDown scrolls forward"],
    ["Shift drag", "select text while a program uses the mouse"],
];
export async function help() {
    const rows = KEYS.map(([keys, what]) => make("tr", {}, make("td", {}, ...keys.split(" ").map((key) => make("kbd", {}, key))), make("td", {}, what)));
    const licences = [...document.querySelectorAll('link[rel="license"]')].map((link) => {
        const to = make("a", { href: link.href }, link.title.replace("@xterm/", ""));
        to.target = "_blank";
        to.rel = "noopener";
        return to;
    });
    await dialog("Keyboard shortcuts", [
        make("table", { class: "keys-help" }, ...rows),
        make("p", { class: "hint" }, "All other keys go to the terminal, except those that the browser keeps for itself: Ctrl W, for example, closes the tab. When you close this page, the session goes on, and you can come back to it from any browser."),
        make("p", { class: "hint licences" }, "Licences: ", ...licences.flatMap((link, at) => (at === 0 ? [link] : [", ", link]))),
    ], null, () => null);
}
