export const MIN_FONT_SIZE = 8;
export const MAX_FONT_SIZE = 32;
const KEY = "splengine-settings";
const listeners = [];
function defaults() {
    const isSmall = matchMedia("(max-width: 640px)").matches;
    return { fontSize: isSmall ? 12 : 14, screenReader: false, renderer: "auto", programCopy: "ask" };
}
export function parseSettings(text, fallback) {
    let kept = null;
    try {
        kept = JSON.parse(text ?? "null");
    }
    catch {
        kept = null;
    }
    if (typeof kept !== "object" || kept === null)
        return fallback;
    const { fontSize, screenReader, renderer, programCopy } = kept;
    return {
        fontSize: typeof fontSize === "number" && Number.isFinite(fontSize) ? clampFontSize(fontSize) : fallback.fontSize,
        screenReader: typeof screenReader === "boolean" ? screenReader : fallback.screenReader,
        renderer: renderer === "dom" || renderer === "auto" ? renderer : fallback.renderer,
        programCopy: programCopy === "ask" || programCopy === "allow" || programCopy === "block" ? programCopy : fallback.programCopy,
    };
}
export function clampFontSize(size) {
    return Math.min(Math.max(Math.round(size), MIN_FONT_SIZE), MAX_FONT_SIZE);
}
export function settings() {
    try {
        return parseSettings(localStorage.getItem(KEY), defaults());
    }
    catch {
        return defaults();
    }
}
export function changeSettings(change) {
    const next = { ...settings(), ...change };
    try {
        localStorage.setItem(KEY, JSON.stringify(next));
    }
    catch {
    }
    for (const listener of listeners)
        listener(next);
}
export function onSettingsChange(listener) {
    listeners.push(listener);
}
