// The views of the console. Each registers itself; with more than one there are tabs.
import { find, make } from "./dom.js";
const views = [];
export function register(view) {
    views.push(view);
    draw(views[0]?.id ?? "");
}
export function isShown(id) {
    return document.body.dataset.view === id;
}
export function show(id) {
    draw(id);
    views.find((view) => view.id === id)?.shown?.();
}
function draw(current) {
    document.body.dataset.view = current;
    for (const view of views)
        view.element.hidden = view.id !== current;
    const tabs = find("tabs");
    tabs.hidden = views.length < 2;
    tabs.replaceChildren(...views.map((view) => {
        const tab = make("button", { role: "tab", type: "button", onclick: () => show(view.id) }, view.label);
        tab.setAttribute("aria-selected", String(view.id === current));
        return tab;
    }));
}
