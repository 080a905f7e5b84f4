// How many letters there is room for, and how large they may be. Nothing here touches the page.
/** How many letters of this font's size there is room for, as xterm.js draws them. */
export function room(measure, wide, high, font, ratio) {
    const cell = measure(font);
    return {
        cols: Math.floor(wide / cell.wide),
        // Lines are whole pixels of the device.
        rows: Math.floor((high * ratio) / Math.ceil(cell.high * ratio - 1e-6)),
    };
}
/** The largest font, up to `most`, in which so many letters have room; never below what can be read. */
export function fittingFont(measure, wide, high, cols, rows, most, ratio) {
    for (let font = most; font > LEAST; font -= STEP) {
        const there = room(measure, wide, high, font, ratio);
        if (there.cols >= cols && there.rows >= rows)
            return font;
    }
    return LEAST;
}
const LEAST = 9;
const STEP = 0.25;
