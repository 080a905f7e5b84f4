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
  prefersLight.addEventListener("change", () => {
    apply();
    listener(theme());
  });
  document.addEventListener("themechange", () => listener(theme()));
}

export function toggleTheme(): void {
  try {
    localStorage.setItem(KEY, theme() === "dark" ? "light" : "dark");
  } catch {
    // A browser that keeps nothing keeps the system's theme.
  }
  apply();
  document.dispatchEvent(new Event("themechange"));
}

export function apply(): void {
  document.documentElement.dataset.theme = theme();
}

export function terminalTheme(of: Theme): ITheme {
  return of === "dark"
    ? {
        background: "#0f1318",
        foreground: "#d8dee6",
        cursor: "#7cc4ff",
        cursorAccent: "#0f1318",
        selectionBackground: "#2b4a6b",
        black: "#1c232b",
        brightBlack: "#6b7886",
      }
    : {
        background: "#fcfcfd",
        foreground: "#1f2733",
        cursor: "#1665c1",
        cursorAccent: "#fcfcfd",
        selectionBackground: "#c5dcf7",
        black: "#1f2733",
        white: "#5b6673",
        brightWhite: "#39424e",
        yellow: "#8a6100",
        brightYellow: "#a07000",
        green: "#1b7a36",
        brightGreen: "#23913f",
        cyan: "#0b7285",
        brightCyan: "#0c8599",
      };
}

function stored(): Theme | null {
  try {
    const value = localStorage.getItem(KEY);
    return value === "dark" || value === "light" ? value : null;
  } catch {
    return null;
  }
}
