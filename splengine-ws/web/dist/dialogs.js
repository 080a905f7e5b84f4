import { find, make } from "./dom.js";
import { focusView } from "./views.js";
export function dialog(title, content, confirm, read) {
    return new Promise((resolve) => {
        let result = null;
        const cancel = make("button", { type: "button", class: "plain", onclick: () => box.close() }, confirm ? (confirm.cancel ?? "Cancel") : "Close");
        const submit = confirm && make("button", { type: "submit", class: confirm.danger ? "danger" : "primary" }, confirm.label);
        const problem = make("p", { class: "problem", role: "alert", hidden: true });
        const form = make("form", {
            onsubmit: async (event) => {
                event.preventDefault();
                if (submit)
                    submit.disabled = true;
                try {
                    result = await read();
                    box.close();
                }
                catch (error) {
                    problem.textContent = error instanceof Error ? error.message : String(error);
                    problem.hidden = false;
                }
                if (submit)
                    submit.disabled = false;
            },
        }, make("h2", {}, title), ...content, problem, make("div", { class: "buttons" }, cancel, submit));
        const box = make("dialog", { label: title }, form);
        box.addEventListener("close", () => {
            document.body.append(find("toast"));
            box.remove();
            focusView();
            resolve(result);
        });
        box.addEventListener("pointerdown", (event) => {
            if (event.target === box)
                box.close();
        });
        cancel.autofocus = box.querySelector("input, select") === null;
        document.body.append(box);
        box.showModal();
        const first = box.querySelector('input[type="text"]');
        if (first && first === document.activeElement)
            first.select();
    });
}
export function field(label, input) {
    return make("label", { class: "field" }, make("span", {}, label), input);
}
export async function askText(title, label, value, button, act) {
    const input = make("input", { type: "text", value, autocomplete: "off" });
    input.maxLength = 200;
    return dialog(title, [field(label, input)], { label: button }, () => act(input.value.trim()));
}
export async function confirmed(title, text, button, keep) {
    const confirm = { label: button, danger: true, cancel: keep };
    const answer = await dialog(title, [make("p", {}, text)], confirm, () => true);
    return answer === true;
}
let timer;
export function say(text, kind = "info") {
    const place = find("toast");
    (document.querySelector("dialog[open]") ?? document.body).append(place);
    place.textContent = text;
    place.className = `toast ${kind} shown`;
    clearTimeout(timer);
    timer = setTimeout(() => place.classList.remove("shown"), kind === "error" ? 8000 : 3500);
}
export async function attempt(work) {
    try {
        return await work();
    }
    catch (error) {
        say(error instanceof Error ? error.message : String(error), "error");
        return null;
    }
}
