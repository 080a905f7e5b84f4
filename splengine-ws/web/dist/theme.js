const KEY = "splengine-theme";
const prefersLight = matchMedia("(prefers-color-scheme: light)");
export function theme() {
    const chosen = stored();
    return chosen ?? (prefersLight.matches ? "light" : "dark");
}
export function onThemeChange(listener) {
    prefersLight.addEventListener("change", () => listener(theme()));
    document.addEventListener("themechange", () => listener(theme()));
}
export function toggleTheme() {
    try {
        const next = theme() === "dark" ? "light" : "dark";
        if ((next === "light") === prefersLight.matches)
            localStorage.removeItem(KEY);
        else
            localStorage.setItem(KEY, next);
    }
    catch {
    }
    apply();
    document.dispatchEvent(new Event("themechange"));
}
export function begin() {
    apply();
    prefersLight.addEventListener("change", apply);
}
function apply() {
    document.documentElement.dataset.theme = theme();
}
export function terminalTheme(of) {
    return of === "dark" ? DARK : LIGHT;
}
export function terminalColors(of) {
    const { foreground, background, cursor } = of === "dark" ? DARK : LIGHT;
    return { foreground, background, cursor };
}
const DARK = {
    background: "#0f1318",
    foreground: "#d8dee6",
    cursor: "#7cc4ff",
    cursorAccent: "#0f1318",
    selectionBackground: "#2b4a6b",
    black: "#1c232b",
    red: "#f47067",
    green: "#57ab5a",
    yellow: "#d0a24a",
    blue: "#539bf5",
    magenta: "#b083f0",
    cyan: "#39c5cf",
    white: "#adbac7",
    brightBlack: "#6b7886",
    brightRed: "#ff938a",
    brightGreen: "#6bc46d",
    brightYellow: "#e6c06a",
    brightBlue: "#6cb6ff",
    brightMagenta: "#dcbdfb",
    brightCyan: "#56d4dd",
    brightWhite: "#f0f4f8",
};
const LIGHT = {
    background: "#fcfcfd",
    foreground: "#1f2733",
    cursor: "#1665c1",
    cursorAccent: "#fcfcfd",
    selectionBackground: "#c5dcf7",
    black: "#1f2733",
    red: "#b3261e",
    green: "#1b7a36",
    yellow: "#8a6100",
    blue: "#1665c1",
    magenta: "#7d3fb3",
    cyan: "#0b7285",
    white: "#c9d1d9",
    brightBlack: "#5b6673",
    brightRed: "#d1352b",
    brightGreen: "#23913f",
    brightYellow: "#a07000",
    brightBlue: "#2f81e0",
    brightMagenta: "#9a5bd0",
    brightCyan: "#0c8599",
    brightWhite: "#eef1f4",
};
function stored() {
    try {
        const value = localStorage.getItem(KEY);
        return value === "dark" || value === "light" ? value : null;
    }
    catch {
        return null;
    }
}
