// Dark or light: as the system has it, unless the person has chosen.

import type { ITheme } from "@xterm/xterm";

export type Theme = "dark" | "light";

const KEY = "splengine-theme";
const prefersLight = matchMedia("(prefers-color-scheme: light)");

export function theme(): Theme {
  const chosen = stored();
  return chosen ?? (prefersLight.matches ? "light" : "dark");
}

export function onThemeChange(listener: (theme: Theme) => void): void {
  prefersLight.addEventListener("change", () => listener(theme()));
  document.addEventListener("themechange", () => listener(theme()));
}

export function toggleTheme(): void {
  try {
    const next = theme() === "dark" ? "light" : "dark";
    // Back at what the system has, it follows the system again.
    if ((next === "light") === prefersLight.matches) localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, next);
  } catch {
    // A browser that keeps nothing keeps the system's theme.
  }
  apply();
  document.dispatchEvent(new Event("themechange"));
}

/** Shows the theme, now and whenever the system changes it. */
export function begin(): void {
  apply();
  prefersLight.addEventListener("change", apply);
}

function apply(): void {
  document.documentElement.dataset.theme = theme();
}

export function terminalTheme(of: Theme): ITheme {
  return of === "dark" ? DARK : LIGHT;
}

/** What a program is told that asks which colours it is drawn in. */
export function terminalColors(of: Theme): { foreground: string; background: string; cursor: string } {
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
} satisfies ITheme;

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
} satisfies ITheme;

function stored(): Theme | null {
  try {
    const value = localStorage.getItem(KEY);
    return value === "dark" || value === "light" ? value : null;
  } catch {
    return null;
  }
}
