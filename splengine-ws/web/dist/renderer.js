import { joinedRanges } from "./graphemes.js";
export class Renderer {
    #term;
    #addon = null;
    #wanted = false;
    #isLoading = false;
    #changed;
    #isDrawn;
    constructor(term, changed, isDrawn) {
        this.#term = term;
        this.#changed = changed;
        this.#isDrawn = isDrawn;
        term.registerCharacterJoiner(joinedRanges);
    }
    get isWebgl() {
        return this.#addon !== null || this.isChanging;
    }
    get isChanging() {
        return this.#isLoading && this.#wanted;
    }
    async use(webgl) {
        this.#wanted = webgl;
        if (!webgl)
            return this.#drop();
        if (this.#addon !== null || this.#isLoading || typeof WebGL2RenderingContext === "undefined")
            return;
        this.#isLoading = true;
        try {
            await this.#isDrawn;
            if (!canWebgl())
                throw new Error("there is no WebGL");
            const { WebglAddon } = await loadWebgl();
            this.#isLoading = false;
            if (!this.#wanted)
                return this.#changed();
            const addon = new WebglAddon();
            addon.onContextLoss(() => this.#drop());
            this.#term.loadAddon(addon);
            this.#addon = addon;
            this.#changed();
        }
        catch {
            this.#isLoading = false;
            this.#drop();
            this.#changed();
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
