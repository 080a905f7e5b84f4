const GO_ON = [16, 17, 18, 20, 229];
const UNIDENTIFIED = 229;
export function leftOf(committed, sent) {
    return committed.startsWith(sent) ? committed.slice(sent.length) : "";
}
export function keysBetween(before, after) {
    const [from, to] = [[...before], [...after]];
    let same = 0;
    while (same < from.length && from[same] === to[same])
        same += 1;
    return "\x7f".repeat(from.length - same) + to.slice(same).join("");
}
export class Composing {
    #area;
    #type;
    #start = null;
    #from = null;
    #isWaiting = false;
    #ended = 0;
    #sent = null;
    #next = null;
    #before = null;
    constructor(area, type) {
        this.#area = area;
        this.#type = type;
        const place = area.parentElement ?? area;
        place.addEventListener("compositionstart", () => this.#starts(), { capture: true });
        place.addEventListener("compositionend", (event) => this.#ends(event), { capture: true });
        place.addEventListener("compositionend", () => this.#waits());
        place.addEventListener("input", () => this.#changed(), { capture: true });
        place.addEventListener("keyup", () => (this.#before = null), { capture: true });
    }
    key(event) {
        if (event.type !== "keydown")
            return true;
        this.#before = null;
        const isComposed = this.#start !== null && this.#sent === null;
        if (event.keyCode === UNIDENTIFIED && !isComposed && !this.#isWaiting) {
            this.#before = this.#area.value;
            return false;
        }
        if (GO_ON.includes(event.keyCode) || !(isComposed || this.#isWaiting))
            return true;
        const next = this.#area.value.slice(this.#from ?? this.#start ?? 0);
        this.#next = next === "" ? null : next;
        queueMicrotask(() => (this.#next = null));
        if (isComposed)
            this.#sent = this.#area.value.slice(this.#start ?? 0);
        this.#isWaiting = false;
        this.#from = null;
        return true;
    }
    typed(data) {
        const next = this.#next;
        this.#next = null;
        if (next !== null)
            return next;
        if (this.#isWaiting && data === this.#waiting())
            this.#isTyped();
        return data;
    }
    #starts() {
        this.#start = this.#area.value.length;
        this.#from ??= this.#start;
        this.#sent = null;
        this.#before = null;
    }
    #ends(event) {
        this.#start = null;
        if (this.#sent === null)
            return;
        event.stopPropagation();
        const left = leftOf(event.data, this.#sent);
        this.#sent = null;
        this.#from = null;
        if (left !== "")
            this.#type(left);
    }
    #waits() {
        this.#isWaiting = true;
        this.#ended += 1;
        const ended = this.#ended;
        setTimeout(() => {
            if (this.#isWaiting && ended === this.#ended)
                this.#isTyped();
        }, 0);
    }
    #waiting() {
        return this.#area.value.slice(this.#from ?? 0, this.#start ?? undefined);
    }
    #isTyped() {
        this.#isWaiting = false;
        this.#from = this.#start;
    }
    #changed() {
        if (this.#before === null || this.#start !== null)
            return;
        const before = this.#before;
        this.#before = this.#area.value;
        const keys = keysBetween(before, this.#before);
        if (keys !== "")
            this.#type(keys);
    }
}
