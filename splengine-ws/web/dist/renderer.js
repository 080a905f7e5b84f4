// How the terminal is drawn: by WebGL where there is one, else as elements of the page.
import { joinedRanges } from "./graphemes.js";
export class Renderer {
    #term;
    #addon = null;
    #wanted = false;
    #changed;
    /** `changed`: cells may have another size now. */
    constructor(term, changed) {
        this.#term = term;
        this.#changed = changed;
        term.registerCharacterJoiner(joinedRanges);
    }
    get isWebgl() {
        return this.#addon !== null;
    }
    /** Draws by WebGL, or not; where it can't, the page's elements stay. */
    async use(webgl) {
        this.#wanted = webgl;
        if (!webgl)
            return this.#drop();
        if (this.#addon !== null || !canWebgl())
            return;
        try {
            const { WebglAddon } = await loadWebgl();
            if (!this.#wanted || this.#addon !== null)
                return;
            const addon = new WebglAddon();
            // A card that was taken away, as after a sleep: the page's elements draw from now on.
            addon.onContextLoss(() => this.#drop());
            this.#term.loadAddon(addon);
            this.#addon = addon;
            this.#changed();
        }
        catch {
            this.#drop();
        }
    }
    #drop() {
        const addon = this.#addon;
        this.#addon = null;
        if (!addon)
            return;
        addon.dispose();
        this.#changed();
    }
}
function canWebgl() {
    try {
        return document.createElement("canvas").getContext("webgl2") !== null;
    }
    catch {
        return false;
    }
}
