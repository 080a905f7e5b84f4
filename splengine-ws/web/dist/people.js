// Who is here, and who is in control.
import { find, make } from "./dom.js";
export class People {
    #clients = [];
    #holder = null;
    #control;
    constructor(control) {
        this.#control = control;
    }
    set clients(clients) {
        this.#clients = clients;
        this.#draw();
    }
    set holder(holder) {
        this.#holder = holder;
        this.#draw();
    }
    #draw() {
        const me = this.#clients.find((client) => client.you);
        const mine = me !== undefined && me.id === this.#holder;
        const people = this.#clients.map((client) => {
            const holds = client.id === this.#holder;
            const role = holds ? "in control" : client.access === "view" ? "looks on" : "may type";
            const label = client.you ? `${client.user} (you)` : client.user;
            const grant = mine && !client.you && client.access === "control";
            return make("li", { class: holds ? "holds" : "", title: `${label}: ${role}` }, make("span", { class: "who" }, label), make("span", { class: "role" }, role), grant && make("button", { type: "button", class: "small", onclick: () => this.#control.send({ type: "control", op: "grant", to: client.id }) }, "Hand over"));
        });
        find("people").replaceChildren(...people);
        const button = find("control");
        button.hidden = me?.access !== "control" || this.#clients.length < 2;
        button.textContent = mine ? "Release control" : "Take control";
        button.onclick = () => this.#control.send({ type: "control", op: mine ? "release" : "take" });
    }
}
