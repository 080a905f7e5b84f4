// The views of the console. Each registers itself; with more than one there are tabs.

import { find, make } from "./dom.js";

export interface View {
  id: string;
  label: string;
  /** The part of the page that it shows. */
  element: HTMLElement;
  shown?(): void;
}

const views: View[] = [];

export function register(view: View): void {
  views.push(view);
  draw(views[0]?.id ?? "");
}

export function isShown(id: string): boolean {
  return document.body.dataset.view === id;
}

export function show(id: string): void {
  draw(id);
  views.find((view) => view.id === id)?.shown?.();
}

function draw(current: string): void {
  document.body.dataset.view = current;
  for (const view of views) view.element.hidden = view.id !== current;
  const tabs = find("tabs");
  tabs.hidden = views.length < 2;
  tabs.replaceChildren(
    ...views.map((view) => {
      const tab = make("button", { role: "tab", type: "button", onclick: () => show(view.id) }, view.label);
      tab.setAttribute("aria-selected", String(view.id === current));
      return tab;
    }),
  );
}
