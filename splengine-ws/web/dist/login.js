import { api, Refusal } from "./api.js";
import { dialog } from "./dialogs.js";
import { find, make } from "./dom.js";
import { REVOKED } from "./words.js";
export async function logIn() {
    const shown = fragment();
    let problem = "";
    if (shown) {
        try {
            return remembered(await follow(shown));
        }
        catch (error) {
            problem = error instanceof Error ? error.message : String(error);
        }
    }
    for (;;) {
        try {
            const me = await api.me();
            if (problem === "")
                return remembered(me);
        }
        catch (error) {
            if (wasGuest())
                problem ||= REVOKED;
            if (!(error instanceof Refusal) || error.status !== 401) {
                problem ||= error instanceof Error ? error.message : String(error);
            }
        }
        const token = await askToken(problem);
        try {
            const me = await api.login({ token }, true);
            hideForm();
            return remembered(me);
        }
        catch (error) {
            problem = error instanceof Error ? error.message : String(error);
        }
    }
}
async function follow(shown) {
    try {
        return await api.login(shown, false);
    }
    catch (error) {
        if (!(error instanceof Refusal) || error.status !== 409)
            throw error;
        const { user, wanted } = error.told;
        const words = make("p", {}, `You are logged in as ${nameOf(user)}. This link is for ${nameOf(wanted)}.`);
        const hint = make("p", { class: "hint" }, "If you switch, what you type goes into their sessions. Switch only if you expected this link.");
        const choice = { label: `Switch to ${nameOf(wanted)}`, cancel: `Stay ${nameOf(user)}` };
        const switches = await dialog("Switch user?", [words, hint], choice, () => true);
        return switches ? api.login(shown, true) : api.me();
    }
}
function nameOf(me) {
    return me === null || me.guest ? "a guest of one session" : me.user;
}
function fragment() {
    const params = new URLSearchParams(location.hash.slice(1));
    const [token, ticket] = [params.get("token"), params.get("ticket")];
    if (!token && !ticket)
        return null;
    history.replaceState(null, "", location.pathname + location.search);
    return token ? { token } : { ticket: ticket ?? "" };
}
function askToken(problem) {
    const input = find("token");
    find("login-problem").textContent = problem;
    find("login").hidden = false;
    find("app").hidden = true;
    input.value = "";
    input.focus();
    return new Promise((resolve) => {
        find("login-form").onsubmit = (event) => {
            event.preventDefault();
            if (input.value.trim())
                resolve(input.value.trim());
        };
    });
}
const GUEST = "splengine-guest";
function wasGuest() {
    try {
        return sessionStorage.getItem(GUEST) !== null;
    }
    catch {
        return false;
    }
}
function remembered(me) {
    try {
        if (me.guest)
            sessionStorage.setItem(GUEST, "yes");
        else
            sessionStorage.removeItem(GUEST);
    }
    catch {
    }
    return me;
}
function hideForm() {
    find("login").hidden = true;
}
