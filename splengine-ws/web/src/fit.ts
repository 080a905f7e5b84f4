// How many letters there is room for, and how large they may be. Nothing here touches the page.

/** The size of a letter, in pixels. */
export interface Cell {
  wide: number;
  high: number;
}

/** How large a letter of a font's size is, before it is drawn. */
export type Measure = (font: number) => Cell;

/** How many letters of this font's size there is room for, as xterm.js draws them. */
export function room(measure: Measure, wide: number, high: number, font: number, ratio: number): { cols: number; rows: number } {
  const cell = measure(font);
  return {
    cols: Math.floor(wide / cell.wide),
    // Lines are whole pixels of the device.
    rows: Math.floor((high * ratio) / Math.ceil(cell.high * ratio - 1e-6)),
  };
}

/** The largest font, up to `most`, in which so many letters have room; never below what can be read. */
export function fittingFont(
  measure: Measure,
  wide: number,
  high: number,
  cols: number,
  rows: number,
  most: number,
  ratio: number,
): number {
  for (let font = most; font > LEAST; font -= STEP) {
    const there = room(measure, wide, high, font, ratio);
    if (there.cols >= cols && there.rows >= rows) return font;
  }
  return LEAST;
}

const LEAST = 9;
const STEP = 0.25;
