// A question beside what the person does: it takes no keys, and waits.

import { find, make } from "./dom.js";
import { focusView } from "./views.js";

export interface Answer {
  label: string;
  act(): void;
}

/** Asks; what was asked before and not answered is gone. The last answer is the one that stands out. */
export function prompt(text: string, answers: Answer[]): void {
  const place = find("prompt");
  const buttons = answers.map(({ label, act }, at) =>
    make("button", { type: "button", class: at === answers.length - 1 ? "primary small" : "small", onclick: () => {
      place.hidden = true;
      focusView();
      act();
    } }, label),
  );
  place.replaceChildren(make("p", {}, text), make("div", { class: "buttons" }, ...buttons));
  place.hidden = false;
}
