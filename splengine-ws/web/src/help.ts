// What the keys do.

import { dialog } from "./dialogs.js";
import { make } from "./dom.js";

const KEYS: [string, string][] = [
  ["Ctrl Shift F", "find in the terminal"],
  ["Ctrl Shift L", "the list of sessions; Esc goes back"],
  ["Ctrl Shift Y", "a new session"],
  ["Ctrl Shift E", "dark or light"],
  ["Ctrl Shift C", "copy what is selected"],
  ["Ctrl Shift V", "paste"],
  ["Ctrl Shift H", "this help"],
];

export async function help(): Promise<void> {
  const rows = KEYS.map(([keys, what]) =>
    make(
      "tr",
      {},
      make("td", {}, ...keys.split(" ").map((key) => make("kbd", {}, key))),
      make("td", {}, what),
    ),
  );
  const licences = [...document.querySelectorAll<HTMLLinkElement>('link[rel="license"]')].map((link) => {
    const to = make("a", { href: link.href }, link.title.replace("@xterm/", ""));
    to.target = "_blank";
    to.rel = "noopener";
    return to;
  });
  await dialog(
    "Keys",
    [
      make("table", { class: "keys-help" }, ...rows),
      make("p", { class: "hint" }, "All other keys go to the terminal. Closing this page leaves its program running: come back from any browser."),
      make("p", { class: "hint licences" }, "Licences: ", ...licences.flatMap((link, at) => (at === 0 ? [link] : [", ", link]))),
    ],
    null,
    () => null,
  );
}
