// The views of the console. Each registers itself; with more than one there are tabs.

import { writeAddress } from "./address.js";
import { find, make } from "./dom.js";

export interface View {
  id: string;
  label: string;
  /** The part of the page that it shows. */
  element: HTMLElement;
  /** It is shown from now on. */
  shown?(): void;
  /** Takes the keyboard: after a dialog, for example. */
  focus?(): void;
}

const views: { view: View; tab: HTMLButtonElement }[] = [];

export function register(view: View): void {
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

export function isShown(id: string): boolean {
  return document.body.dataset.view === id;
}

export function show(id: string): void {
  draw(id);
  writeAddress(id);
  views.find(({ view }) => view.id === id)?.view.shown?.();
}

/** Gives the keyboard to the view that is shown. */
export function focusView(): void {
  views.find(({ view }) => isShown(view.id))?.view.focus?.();
}

function draw(current: string): void {
  document.body.dataset.view = current;
  for (const { view, tab } of views) {
    const isCurrent = view.id === current;
    view.element.hidden = !isCurrent;
    tab.setAttribute("aria-selected", String(isCurrent));
    tab.tabIndex = isCurrent ? 0 : -1;
  }
}

function moveInTabs(event: KeyboardEvent): void {
  const now = views.findIndex(({ tab }) => tab === event.target);
  const next = { ArrowRight: now + 1, ArrowLeft: now - 1, Home: 0, End: views.length - 1 }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  const to = views[(next + views.length) % views.length];
  if (!to) return;
  show(to.view.id);
  to.tab.focus();
}
