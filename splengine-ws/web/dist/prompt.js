import { find, make } from "./dom.js";
import { focusView } from "./views.js";
export function prompt(text, answers) {
    const place = find("prompt");
    const buttons = answers.map(({ label, act }, at) => make("button", { type: "button", class: at === answers.length - 1 ? "primary small" : "small", onclick: () => {
            place.hidden = true;
            focusView();
            act();
        } }, label));
    place.replaceChildren(make("p", {}, text), make("div", { class: "buttons" }, ...buttons));
    place.hidden = false;
}
