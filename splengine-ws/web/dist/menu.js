import { make } from "./dom.js";
import { focusView } from "./views.js";
export function menuOf(label, key, entries) {
    const menu = make("div", { class: "menu", role: "menu", label });
    const button = make("button", { type: "button", class: "more", label, title: label }, "⋯");
    const item = (entry) => "act" in entry
        ? make("button", { type: "button", class: entry.danger ? "danger" : "", role: "menuitem", onclick: () => {
                menu.hidePopover();
                focusView();
                entry.act();
            } }, entry.label)
        : make("a", { href: entry.href, download: entry.download, role: "menuitem", onclick: () => menu.hidePopover() }, entry.label);
    menu.setAttribute("popover", "auto");
    menu.addEventListener("keydown", (event) => {
        const items = [...menu.children];
        const now = items.indexOf(document.activeElement);
        const next = { ArrowDown: now + 1, ArrowUp: now - 1, Home: 0, End: items.length - 1 }[event.key];
        if (next === undefined)
            return;
        items[(next + items.length) % items.length]?.focus();
        event.preventDefault();
    });
    button.dataset.key = key;
    button.setAttribute("aria-haspopup", "menu");
    button.popoverTargetElement = menu;
    menu.addEventListener("beforetoggle", (event) => {
        if (event.newState === "open")
            menu.replaceChildren(...entries().map(item));
    });
    menu.addEventListener("toggle", (event) => {
        if (event.newState !== "open")
            return;
        const { right, bottom } = button.getBoundingClientRect();
        menu.style.top = `${Math.max(Math.min(bottom, innerHeight - menu.offsetHeight - 8), 8)}px`;
        menu.style.left = `${Math.max(right - menu.offsetWidth, 8)}px`;
        menu.firstElementChild?.focus();
    });
    return make("div", { class: "menu-of" }, button, menu);
}
