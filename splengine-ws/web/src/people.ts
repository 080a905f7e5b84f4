// Who is here, and who is in control.

import { find, make } from "./dom.js";
import type { Client } from "./protocol.js";

export interface Control {
  send(frame: Record<string, unknown>): void;
}

export class People {
  #clients: Client[] = [];
  #holder: string | null = null;
  #control: Control;

  constructor(control: Control) {
    this.#control = control;
  }

  set clients(clients: Client[]) {
    this.#clients = clients;
    this.#draw();
  }

  set holder(holder: string | null) {
    this.#holder = holder;
    this.#draw();
  }

  #draw(): void {
    const me = this.#clients.find((client) => client.you);
    const mine = me !== undefined && me.id === this.#holder;
    const people = this.#clients.map((client) => {
      const holds = client.id === this.#holder;
      const role = holds ? "in control" : client.access === "view" ? "looks on" : "may type";
      const label = client.you ? `${client.user} (you)` : client.user;
      const grant = mine && !client.you && client.access === "control";
      return make(
        "li",
        { class: holds ? "holds" : "", title: `${label}: ${role}` },
        make("span", { class: "who" }, label),
        make("span", { class: "role" }, role),
        grant && make("button", { type: "button", class: "small", onclick: () => this.#control.send({ type: "control", op: "grant", to: client.id }) }, "Hand over"),
      );
    });
    find("people").replaceChildren(...people);
    const button = find<HTMLButtonElement>("control");
    button.hidden = me?.access !== "control" || this.#clients.length < 2;
    button.textContent = mine ? "Release control" : "Take control";
    button.onclick = () => this.#control.send({ type: "control", op: mine ? "release" : "take" });
  }
}
