// Giving others the right to one session, and taking it back.

import { api, type Share } from "./api.js";
import { copy } from "./clipboard.js";
import { attempt, dialog, field, say } from "./dialogs.js";
import { make } from "./dom.js";
import type { Access } from "./protocol.js";

const TIMES: [string, number][] = [
  ["15 minutes", 15 * 60_000],
  ["1 hour", 3_600_000],
  ["8 hours", 8 * 3_600_000],
  ["7 days", 7 * 86_400_000],
];

export async function shareDialog(sessionId: string): Promise<void> {
  const shares = await attempt(() => api.shares(sessionId));
  if (!shares) return;
  const list = make("ul", { class: "shares" });
  const draw = (all: Share[]) => {
    list.replaceChildren(...all.map((share) => row(share, () => takeBack(share.shareId))));
    if (all.length > 1) list.append(make("li", {}, make("span", {}, "All of them"), backButton(() => takeBack(null))));
    list.hidden = all.length === 0;
  };
  const takeBack = async (share: string | null) => {
    await attempt(() => api.takeBack(sessionId, share));
    await refresh();
  };
  const refresh = async () => {
    const all = await attempt(() => api.shares(sessionId));
    if (all) draw(all);
  };
  draw(shares);

  const access = make("select", { name: "access" }, make("option", { value: "view" }, "look on"), make("option", { value: "control" }, "type as well"));
  const time = make("select", { name: "time" }, ...TIMES.map(([label, value]) => make("option", { value: String(value) }, label)));
  time.value = "3600000";
  const link = make("input", { type: "text", readOnly: true, label: "Link" });
  const button = make("button", {
    type: "button",
    onclick: async () => {
      const done = await copy(link.value, result);
      link.select();
      say(done ? "The link is copied." : "Copy it with your browser's own command.");
    },
  }, "Copy");
  const result = make("div", { class: "link", hidden: true }, link, button);
  const create = make("button", {
    type: "button",
    class: "primary",
    onclick: async () => {
      const made = await attempt(() => api.share(sessionId, access.value as Access, Number(time.value)));
      if (!made) return;
      link.value = made.url;
      result.hidden = false;
      link.select();
      await refresh();
    },
  }, "Make a link");
  await dialog(
    "Share this session",
    [
      make("p", { class: "hint" }, "A link works once, in one browser, which may then come back until it expires."),
      field("Whoever has it may", access),
      field("It expires after", time),
      create,
      result,
      list,
    ],
    null,
    () => null,
  );
}

function row(share: Share, back: () => Promise<void>): HTMLElement {
  const until = new Date(share.expires).toLocaleString([], { dateStyle: "short", timeStyle: "short" });
  const text = `${share.access === "view" ? "Look on" : "Type as well"}, until ${until}${share.used ? ", used" : ""}`;
  return make("li", {}, make("span", {}, text), backButton(back));
}

function backButton(back: () => Promise<void>): HTMLElement {
  return make("button", { type: "button", class: "plain small", onclick: () => void back() }, "Take back");
}
