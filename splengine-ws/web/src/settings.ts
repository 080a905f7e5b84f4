// What the person has chosen, kept by the browser.

export interface Settings {
  fontSize: number;
  screenReader: boolean;
  /** `dom` where the graphics card, or its driver, draws wrongly. */
  renderer: "auto" | "dom";
  /** Whether programs may put text into the clipboard. */
  programCopy: "ask" | "allow" | "block";
}

export const MIN_FONT_SIZE = 8;
export const MAX_FONT_SIZE = 32;

const KEY = "splengine-settings";
const listeners: ((settings: Settings) => void)[] = [];

function defaults(): Settings {
  const isSmall = matchMedia("(max-width: 640px)").matches;
  return { fontSize: isSmall ? 12 : 14, screenReader: false, renderer: "auto", programCopy: "ask" };
}

/** Reads what was kept; what can't be right is left out. */
export function parseSettings(text: string | null, fallback: Settings): Settings {
  let kept: unknown = null;
  try {
    kept = JSON.parse(text ?? "null");
  } catch {
    kept = null;
  }
  if (typeof kept !== "object" || kept === null) return fallback;
  const { fontSize, screenReader, renderer, programCopy } = kept as Record<string, unknown>;
  return {
    fontSize: typeof fontSize === "number" && Number.isFinite(fontSize) ? clampFontSize(fontSize) : fallback.fontSize,
    screenReader: typeof screenReader === "boolean" ? screenReader : fallback.screenReader,
    renderer: renderer === "dom" || renderer === "auto" ? renderer : fallback.renderer,
    programCopy: programCopy === "ask" || programCopy === "allow" || programCopy === "block" ? programCopy : fallback.programCopy,
  };
}

export function clampFontSize(size: number): number {
  return Math.min(Math.max(Math.round(size), MIN_FONT_SIZE), MAX_FONT_SIZE);
}

export function settings(): Settings {
  try {
    return parseSettings(localStorage.getItem(KEY), defaults());
  } catch {
    return defaults();
  }
}

export function changeSettings(change: Partial<Settings>): void {
  const next = { ...settings(), ...change };
  try {
    localStorage.setItem(KEY, JSON.stringify(next));
  } catch {
    // A browser that keeps nothing has them until the page is left.
  }
  for (const listener of listeners) listener(next);
}

export function onSettingsChange(listener: (settings: Settings) => void): void {
  listeners.push(listener);
}
