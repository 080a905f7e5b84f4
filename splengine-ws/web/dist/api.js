import { sentence } from "./words.js";
export class Refusal extends Error {
    status;
    told;
    constructor(status, message, told = {}) {
        super(message);
        this.status = status;
        this.told = told;
    }
}
async function ask(method, path, body) {
    const init = { method, credentials: "same-origin" };
    if (body !== undefined) {
        init.headers = { "Content-Type": "application/json" };
        init.body = JSON.stringify(body);
    }
    let response;
    try {
        response = await fetch(new URL(path, document.baseURI), init);
    }
    catch {
        throw new Refusal(0, "The server can't be reached.");
    }
    const text = await response.text();
    let value = null;
    try {
        value = text === "" ? null : JSON.parse(text);
    }
    catch {
        value = null;
    }
    if (!response.ok) {
        const told = typeof value === "object" && value !== null ? value : {};
        if (response.status === 401 && !["login", "me"].includes(path))
            void lookWhoIsHere();
        throw new Refusal(response.status, typeof told.detail === "string" ? sentence(told.detail) : `The server answered ${response.status}.`, told);
    }
    return value;
}
async function lookWhoIsHere() {
    try {
        await api.me();
    }
    catch (error) {
        if (error instanceof Refusal && error.status === 401)
            location.reload();
    }
}
const batchOf = (id) => `api/v1/batches/${encodeURIComponent(id)}`;
const of = (id) => `api/v1/sessions/${encodeURIComponent(id)}`;
export const api = {
    me: () => ask("GET", "me"),
    login: (shown, replace) => ask("POST", "login", { ...shown, replace }),
    logout: () => ask("POST", "logout"),
    sessions: async () => (await ask("GET", "api/v1/sessions")).sessions,
    session: (id) => ask("GET", of(id)),
    create: (request) => ask("POST", "api/v1/sessions", request),
    rename: (id, name) => ask("PATCH", of(id), { name }),
    end: (id) => ask("DELETE", of(id)),
    save: (id, name) => ask("POST", `${of(id)}/save`, name ? { name } : {}),
    saved: async () => (await ask("GET", "api/v1/saved-sessions")).savedSessions,
    removeSaved: (id) => ask("DELETE", `api/v1/saved-sessions/${encodeURIComponent(id)}`),
    shares: async (id) => (await ask("GET", `${of(id)}/shares`)).shares,
    share: (id, access, expiresIn) => ask("POST", `${of(id)}/shares`, { access, expiresIn }),
    revoke: (id, share) => ask("DELETE", `${of(id)}/shares${share === null ? "" : `/${encodeURIComponent(share)}`}`),
    capabilities: async () => (await ask("GET", "api/v1/service")).capabilities,
    batches: (cursor) => ask("GET", `api/v1/batches${cursor === null ? "" : `?cursor=${encodeURIComponent(cursor)}`}`),
    batch: (id) => ask("GET", batchOf(id)),
    submitBatch: (request) => ask("POST", "api/v1/batches", request),
    cancelBatch: (id) => ask("DELETE", batchOf(id)),
    rerunBatch: (id, onlyFailed) => ask("POST", `${batchOf(id)}/rerun${onlyFailed ? "?only=failed" : ""}`),
    output: (id, step, stream) => new URL(`${batchOf(id)}/steps/${encodeURIComponent(step)}/${stream}`, document.baseURI).href,
    recording: (id) => new URL(`${of(id)}/recording`, document.baseURI).href,
    screen: (id) => new URL(`${of(id)}/screen?format=text`, document.baseURI).href,
};
