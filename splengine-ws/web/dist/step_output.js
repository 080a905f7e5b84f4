import { AnsiText } from "./ansi.js";
import { find, make } from "./dom.js";
const MAX_SHOWN = 200_000;
export class StepStream {
    #part;
    #pre;
    #all;
    #cut;
    #text = new AnsiText();
    #waiting = [];
    #lengths = [];
    #length = 0;
    #isCut = false;
    #current = null;
    #frame = 0;
    constructor(prefix, pre) {
        this.#part = find(`${prefix}-part`);
        this.#pre = find(pre);
        this.#all = find(`${prefix}-all`);
        this.#cut = find(`${prefix}-cut`);
        this.#cut.textContent = "Only the end is shown here. Download it to see everything.";
    }
    begin(href, name) {
        cancelAnimationFrame(this.#frame);
        this.#frame = 0;
        this.#text = new AnsiText();
        this.#waiting = [];
        this.#lengths = [];
        this.#length = 0;
        this.#isCut = false;
        this.#current = null;
        this.#pre.replaceChildren();
        this.#part.hidden = true;
        this.#cut.hidden = true;
        this.#all.href = href;
        this.#all.download = name;
    }
    push(piece) {
        this.#waiting.push(...this.#text.push(piece));
        if (this.#frame === 0)
            this.#frame = requestAnimationFrame(() => this.#draw());
    }
    #draw() {
        this.#frame = 0;
        const isAtEnd = this.#pre.scrollTop + this.#pre.clientHeight >= this.#pre.scrollHeight - 8;
        this.#part.hidden = false;
        this.#current?.remove();
        for (const { runs, isWhole } of this.#newest()) {
            const line = drawn(runs);
            if (isWhole)
                line.append("\n");
            const length = line.textContent?.length ?? 0;
            this.#pre.append(line);
            this.#lengths.push(length);
            this.#length += length;
        }
        this.#waiting = [];
        while (this.#length > MAX_SHOWN && this.#lengths.length > 1) {
            this.#length -= this.#lengths.shift() ?? 0;
            this.#pre.firstChild?.remove();
            this.#isCut = true;
        }
        this.#current = drawn(this.#text.current);
        this.#pre.append(this.#current);
        this.#cut.hidden = !this.#isCut;
        if (isAtEnd)
            this.#pre.scrollTop = this.#pre.scrollHeight;
    }
    #newest() {
        let [length, from] = [0, this.#waiting.length];
        while (from > 0 && length <= MAX_SHOWN) {
            from -= 1;
            length += this.#waiting[from]?.runs.reduce((sum, run) => sum + run.text.length, 1) ?? 0;
        }
        if (from > 0)
            this.#isCut = true;
        return this.#waiting.slice(from);
    }
}
function drawn(runs) {
    return make("span", {}, ...runs.map(one));
}
function one({ text, style }) {
    const [fore, back] = style.inverse ? [style.back ?? "var(--terminal)", style.fore ?? "var(--text)"] : [style.fore, style.back];
    const names = [
        style.bold && "ansi-bold",
        style.dim && "ansi-dim",
        style.italic && "ansi-italic",
        style.underline && "ansi-underline",
        style.strike && "ansi-strike",
    ].filter(Boolean);
    if (names.length === 0 && fore === null && back === null)
        return document.createTextNode(text);
    const span = make("span", { class: names.join(" ") }, text);
    if (fore !== null)
        span.style.color = colour(fore);
    if (back !== null)
        span.style.backgroundColor = colour(back);
    return span;
}
function colour(of) {
    return typeof of === "number" ? `var(--ansi-${of})` : of;
}
