// What the page shows, as its address says: so a reload, and a bookmark, come back to it.

export type Place = { view: "terminal"; session: string | null } | { view: "batches"; batch: string | null };

/** Reads what stands behind `#`; null when that says nothing of a place. */
export function parsePlace(hash: string): Place | null {
  const params = new URLSearchParams(hash.replace(/^#/, ""));
  const [session, batch] = [params.get("session"), params.get("batch")];
  if (batch !== null) return { view: "batches", batch: batch || null };
  if (params.has("batches")) return { view: "batches", batch: null };
  return session ? { view: "terminal", session } : null;
}

export function formatPlace(place: Place): string {
  if (place.view === "terminal") return place.session ? `#session=${encodeURIComponent(place.session)}` : "";
  return place.batch ? `#batch=${encodeURIComponent(place.batch)}` : "#batches";
}

/** The page's own address with something else behind its `#`. */
export function pageLink(base: string, hash: string): string {
  const link = new URL(base);
  link.search = "";
  link.hash = hash;
  return link.href;
}

let session: string | null = null;
let batch: string | null = null;

export function setSession(id: string | null): void {
  session = id;
}

export function setBatch(id: string | null): void {
  batch = id;
}

/** Writes the address of what `view` shows now. */
export function writeAddress(view: string): void {
  const place: Place = view === "batches" ? { view, batch } : { view: "terminal", session };
  history.replaceState(null, "", location.pathname + location.search + formatPlace(place));
}
