const PLAIN = { bold: false, dim: false, italic: false, underline: false, strike: false, inverse: false, fore: null, back: null };
const MAX_CELLS = 10_000;
const MAX_SEQUENCE = 4096;
const TAB = 8;
export class AnsiText {
    #cells = [];
    #column = 0;
    #style = PLAIN;
    #rest = "";
    push(piece) {
        const text = this.#rest + piece;
        this.#rest = "";
        const lines = [];
        let at = 0;
        while (at < text.length) {
            const char = String.fromCodePoint(text.codePointAt(at) ?? 0);
            if (char !== "\x1b") {
                at += char.length;
                this.#char(char, lines);
                continue;
            }
            const sequence = SEQUENCE.exec(text.slice(at, at + MAX_SEQUENCE));
            if (sequence) {
                this.#csi(sequence[1] ?? "", sequence[2] ?? "");
                at += sequence[0].length;
            }
            else if (text.length - at < MAX_SEQUENCE) {
                this.#rest = text.slice(at);
                break;
            }
            else {
                at += 1;
            }
        }
        return lines;
    }
    get current() {
        return runs(this.#cells);
    }
    #char(char, lines) {
        switch (char) {
            case "\n":
                return this.#end(lines, true);
            case "\r":
                this.#column = 0;
                return;
            case "\b":
                this.#column = Math.max(this.#column - 1, 0);
                return;
            case "\t":
                for (let left = TAB - (this.#column % TAB); left > 0; left -= 1)
                    this.#put(" ");
                return;
        }
        const code = char.codePointAt(0) ?? 0;
        if (code < 0x20 || (code >= 0x7f && code < 0xa0))
            return;
        this.#put(char);
        if (this.#cells.length >= MAX_CELLS)
            this.#end(lines, false);
    }
    #put(text) {
        while (this.#cells.length < this.#column)
            this.#cells.push({ text: " ", style: PLAIN });
        this.#cells[this.#column] = { text, style: this.#style };
        this.#column += 1;
    }
    #end(lines, isWhole) {
        lines.push({ runs: runs(this.#cells), isWhole });
        this.#cells = [];
        this.#column = 0;
    }
    #csi(parameters, final) {
        const count = Math.min(Math.max(Number.parseInt(parameters, 10) || 1, 1), MAX_CELLS - 1);
        switch (final) {
            case "m":
                this.#style = styled(this.#style, parameters);
                break;
            case "K":
                if (/^0*$/.test(parameters))
                    this.#cells.length = Math.min(this.#cells.length, this.#column);
                else if (parameters === "2")
                    this.#cells = [];
                else
                    for (let at = 0; at <= this.#column && at < this.#cells.length; at += 1)
                        this.#cells[at] = { text: " ", style: PLAIN };
                break;
            case "C":
                this.#column = Math.min(this.#column + count, MAX_CELLS - 1);
                break;
            case "D":
                this.#column = Math.max(this.#column - count, 0);
                break;
            case "G":
                this.#column = count - 1;
                break;
        }
    }
}
const SEQUENCE = /^\x1b(?:\[([0-?]*)[ -/]*([@-~])|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]+[0-~]|[0-OQ-WYZ\\`-~])/;
function styled(before, parameters) {
    const style = { ...before };
    const codes = parameters.split(/[;:]/).map((code) => Number(code || "0"));
    for (let at = 0; at < codes.length; at += 1) {
        const code = codes[at] ?? 0;
        if (code === 0)
            Object.assign(style, PLAIN);
        else if (code === 1)
            style.bold = true;
        else if (code === 2)
            style.dim = true;
        else if (code === 3)
            style.italic = true;
        else if (code === 4)
            style.underline = true;
        else if (code === 7)
            style.inverse = true;
        else if (code === 9)
            style.strike = true;
        else if (code === 22)
            style.bold = style.dim = false;
        else if (code === 23)
            style.italic = false;
        else if (code === 24)
            style.underline = false;
        else if (code === 27)
            style.inverse = false;
        else if (code === 29)
            style.strike = false;
        else if (code >= 30 && code <= 37)
            style.fore = code - 30;
        else if (code === 39)
            style.fore = null;
        else if (code >= 40 && code <= 47)
            style.back = code - 40;
        else if (code === 49)
            style.back = null;
        else if (code >= 90 && code <= 97)
            style.fore = code - 90 + 8;
        else if (code >= 100 && code <= 107)
            style.back = code - 100 + 8;
        else if (code === 38 || code === 48) {
            const [colour, used] = extended(codes.slice(at + 1));
            at += used;
            if (code === 38)
                style.fore = colour;
            else
                style.back = colour;
        }
    }
    return style;
}
function extended(codes) {
    const [kind, first = 0, second = 0, third = 0] = codes;
    if (kind === 2)
        return [`rgb(${byte(first)} ${byte(second)} ${byte(third)})`, 4];
    if (kind !== 5)
        return [null, 1];
    const index = byte(first);
    if (index < 16)
        return [index, 2];
    if (index >= 232) {
        const grey = 8 + (index - 232) * 10;
        return [`rgb(${grey} ${grey} ${grey})`, 2];
    }
    const part = (weight) => [0, 95, 135, 175, 215, 255][Math.floor((index - 16) / weight) % 6];
    return [`rgb(${part(36)} ${part(6)} ${part(1)})`, 2];
}
function byte(value) {
    return Number.isFinite(value) ? Math.min(Math.max(value, 0), 255) : 0;
}
function runs(cells) {
    const found = [];
    for (const { text, style } of cells) {
        const last = found.at(-1);
        if (last && last.style === style)
            last.text += text;
        else
            found.push({ text, style });
    }
    return found;
}
