import { find, make } from "./dom.js";
import { focusView } from "./views.js";
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
        const alone = this.#clients.length < 2;
        const people = this.#clients.map((client) => {
            const holds = client.id === this.#holder;
            const rights = client.access === "view" ? "view only" : "can type";
            const role = holds && !alone ? `${rights}, sets the screen size` : rights;
            const label = client.you ? `${client.user} (you)` : client.user;
            const grant = mine && !client.you && client.access === "control";
            return make("li", { class: holds ? "holds" : "", title: `${label}: ${role}` }, make("span", { class: "who" }, label), make("span", { class: "role" }, role), grant && make("button", { type: "button", class: "small", onclick: () => this.#send({ type: "control", op: "grant", to: client.id }) }, "Use their window size"));
        });
        find("people").replaceChildren(...people);
        const button = find("control");
        button.hidden = me?.access !== "control" || alone || mine;
        button.textContent = "Use my window size";
        button.onclick = () => this.#send({ type: "control", op: "take" });
    }
    #send(frame) {
        this.#control.send(frame);
        focusView();
    }
}
