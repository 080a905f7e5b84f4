export function room(measure, wide, high, font, ratio) {
    const cell = measure(font);
    return {
        cols: Math.floor(wide / cell.wide),
        rows: Math.floor((high * ratio) / Math.ceil(cell.high * ratio - 1e-6)),
    };
}
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
