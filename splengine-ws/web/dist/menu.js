// A button with a menu behind it.
import { make } from "./dom.js";
/** `key` marks the button, so that it can be found again when its list is drawn anew. */
export function menuOf(label, key, entries) {
    const items = entries.map((entry) => "act" in entry
        ? make("button", { type: "button", class: entry.danger ? "danger" : "", role: "menuitem", onclick: () => {
                menu.hidePopover();
                entry.act();
            } }, entry.label)
        : make("a", { href: entry.href, download: entry.download, role: "menuitem", onclick: () => menu.hidePopover() }, entry.label));
    const menu = make("div", { class: "menu", role: "menu", label }, ...items);
    menu.setAttribute("popover", "auto");
    menu.addEventListener("keydown", (event) => {
        const now = items.indexOf(document.activeElement);
        const next = { ArrowDown: now + 1, ArrowUp: now - 1, Home: 0, End: items.length - 1 }[event.key];
        if (next === undefined)
            return;
        items[(next + items.length) % items.length]?.focus();
        event.preventDefault();
    });
    const button = make("button", { type: "button", class: "more", label }, "⋯");
    button.dataset.key = key;
    button.setAttribute("aria-haspopup", "menu");
    button.popoverTargetElement = menu;
    menu.addEventListener("toggle", (event) => {
        if (event.newState !== "open")
            return;
        const { right, bottom } = button.getBoundingClientRect();
        menu.style.top = `${Math.min(bottom, innerHeight - menu.offsetHeight - 8)}px`;
        menu.style.left = `${Math.max(right - menu.offsetWidth, 8)}px`;
        items[0]?.focus();
    });
    return make("div", { class: "menu-of" }, button, menu);
}
