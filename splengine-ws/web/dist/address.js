export function parsePlace(hash) {
    const params = new URLSearchParams(hash.replace(/^#/, ""));
    const [session, batch] = [params.get("session"), params.get("batch")];
    if (batch !== null)
        return { view: "batches", batch: batch || null };
    if (params.has("batches"))
        return { view: "batches", batch: null };
    return session ? { view: "terminal", session } : null;
}
export function formatPlace(place) {
    if (place.view === "terminal")
        return place.session ? `#session=${encodeURIComponent(place.session)}` : "";
    return place.batch ? `#batch=${encodeURIComponent(place.batch)}` : "#batches";
}
export function pageLink(base, hash) {
    const link = new URL(base);
    link.search = "";
    link.hash = hash;
    return link.href;
}
let session = null;
let batch = null;
export function setSession(id) {
    session = id;
}
export function setBatch(id) {
    batch = id;
}
export function writeAddress(view) {
    const place = view === "batches" ? { view, batch } : { view: "terminal", session };
    history.replaceState(null, "", location.pathname + location.search + formatPlace(place));
}
