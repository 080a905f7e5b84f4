export function noticeText(frame) {
    const words = {
        idle_warning: `This session ends in ${frame.seconds ?? "a few"} seconds if nothing happens in it.`,
        recording_stopped: frame.reason === "limit"
            ? "The recording reached its maximum size and has stopped. The session goes on."
            : "The recording could not be written and has stopped. The session goes on.",
        size_refused: `The terminal keeps its size. ${sentence(frame.reason ?? "")}`,
        restart: "The server is restarting.",
        read_only: "This is view only: what you type is not sent.",
        culled: "The session reached its time limit and was ended.",
        revoked: REVOKED,
    };
    return words[frame.kind];
}
export const REVOKED = "This link has expired or was revoked. Ask the person who sent it for a new one.";
export function statusText(state) {
    return {
        connecting: "connecting…",
        open: "connected",
        silent: "not responding…",
        again: "reconnecting…",
        login: "logged out",
        ended: "ended",
        over: "closed",
    }[state] ?? state;
}
export function closeText(code, reason) {
    return {
        1000: "The session has ended.",
        4403: "You have no permission to use this session.",
        4404: "This session no longer exists.",
        4408: "The session reached its time limit and was ended.",
        4429: "There are too many sessions or connections. End a session first.",
    }[code] ?? `The server closed the connection${reason ? `: ${reason}` : ""}.`;
}
export function sentence(text) {
    const said = text.trim().replace(/`([^`]+)`/g, "“$1”");
    const begun = /^[a-z]+[ ,]/.test(said) ? said.charAt(0).toUpperCase() + said.slice(1) : said;
    return begun === "" || /[.!?…]$/.test(begun) ? begun : `${begun}.`;
}
export function noViewText(scopes) {
    const has = scopes.length === 0 ? "no permissions" : `the permission ${scopes.join(", ")}`;
    return `You are logged in with ${has}. The console shows terminals, which need the permission “sessions” or “watch”, and batches, which need “execute”.`;
}
