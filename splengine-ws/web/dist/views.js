import { writeAddress } from "./address.js";
import { find, make } from "./dom.js";
const views = [];
export function register(view) {
    const tab = make("button", { role: "tab", type: "button", onclick: () => show(view.id) }, view.label);
    tab.id = `tab-${view.id}`;
    tab.dataset.label = view.label;
    tab.setAttribute("aria-controls", view.element.id);
    tab.addEventListener("keydown", moveInTabs);
    views.push({ view, tab });
    find("tabs").append(tab);
    find("tabs").hidden = views.length < 2;
    draw(views[0]?.view.id ?? "");
}
export function isShown(id) {
    return document.body.dataset.view === id;
}
export function show(id) {
    draw(id);
    writeAddress(id);
    views.find(({ view }) => view.id === id)?.view.shown?.();
}
export function focusView() {
    views.find(({ view }) => isShown(view.id))?.view.focus?.();
}
function draw(current) {
    document.body.dataset.view = current;
    for (const { view, tab } of views) {
        const isCurrent = view.id === current;
        view.element.hidden = !isCurrent;
        tab.setAttribute("aria-selected", String(isCurrent));
        tab.tabIndex = isCurrent ? 0 : -1;
    }
}
function moveInTabs(event) {
    const now = views.findIndex(({ tab }) => tab === event.target);
    const next = { ArrowRight: now + 1, ArrowLeft: now - 1, Home: 0, End: views.length - 1 }[event.key];
    if (next === undefined)
        return;
    event.preventDefault();
    const to = views[(next + views.length) % views.length];
    if (!to)
        return;
    show(to.view.id);
    to.tab.focus();
}
