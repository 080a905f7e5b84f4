import { pageLink } from "./address.js";
import { api } from "./api.js";
import { copy } from "./clipboard.js";
import { attempt, dialog, field, say } from "./dialogs.js";
import { make } from "./dom.js";
const TIMES = [
    ["15 minutes", 15 * 60_000],
    ["1 hour", 3_600_000],
    ["8 hours", 8 * 3_600_000],
    ["7 days", 7 * 86_400_000],
];
export async function shareDialog(sessionId) {
    const list = make("ul", { class: "shares", hidden: true });
    const draw = (all) => {
        list.replaceChildren(...all.map((share) => row(share, () => revoke(share.shareId))));
        if (all.length > 1)
            list.append(make("li", {}, make("span", {}, "All links"), backButton("Revoke all", () => revoke(null))));
        list.hidden = all.length === 0;
    };
    const revoke = async (share) => {
        await attempt(() => api.revoke(sessionId, share));
        await refresh();
    };
    const refresh = async () => {
        const all = await attempt(() => api.shares(sessionId));
        if (all)
            draw(all);
    };
    const access = make("select", { name: "access" }, make("option", { value: "view" }, "View only"), make("option", { value: "control" }, "View and type"));
    const time = make("select", { name: "time" }, ...TIMES.map(([label, value]) => make("option", { value: String(value) }, label)));
    time.value = "3600000";
    const link = make("input", { type: "text", readOnly: true, label: "Link" });
    const button = make("button", {
        type: "button",
        onclick: async () => {
            const done = await copy(link.value, result);
            link.select();
            say(done ? "Link copied." : "The browser does not let this page copy. Copy the link with Ctrl C.");
        },
    }, "Copy");
    const result = make("div", { class: "link", hidden: true }, link, button);
    const create = make("button", {
        type: "button",
        class: "primary",
        onclick: async () => {
            const made = await attempt(() => api.share(sessionId, access.value, Number(time.value)));
            if (!made)
                return;
            link.value = pageLink(document.baseURI, `ticket=${encodeURIComponent(made.ticket)}`);
            result.hidden = false;
            link.select();
            await refresh();
        },
    }, "Create link");
    const closed = dialog("Share session", [
        make("p", { class: "hint" }, "Each link works once, in one browser. That browser can come back until the link expires."),
        field("Permission", access),
        field("Expires after", time),
        create,
        result,
        list,
    ], null, () => null);
    await refresh();
    await closed;
}
function row(share, back) {
    const until = new Date(share.expires).toLocaleString([], { dateStyle: "short", timeStyle: "short" });
    const text = `${share.access === "view" ? "View only" : "View and type"}, expires ${until}${share.used ? ", used" : ", not used yet"}`;
    return make("li", {}, make("span", {}, text), backButton("Revoke", back));
}
function backButton(label, back) {
    return make("button", { type: "button", class: "plain small", onclick: () => void back() }, label);
}
