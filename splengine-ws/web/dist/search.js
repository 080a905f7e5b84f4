import { find } from "./dom.js";
import { focusView } from "./views.js";
const MARKS = {
    matchBackground: "#6b5300",
    matchOverviewRuler: "#d29922",
    activeMatchBackground: "#b35900",
    activeMatchColorOverviewRuler: "#ff8c1a",
};
export class FindBar {
    #screen;
    #addon = null;
    #loading = null;
    #text = find("search-text");
    #options = { caseSensitive: false, wholeWord: false, regex: false };
    constructor(screen) {
        this.#screen = screen;
        this.#text.addEventListener("input", () => void this.#go(true, true));
        find("search").addEventListener("keydown", (event) => {
            if (event.key === "Escape")
                this.show(false);
            if (event.key === "Enter" && event.target === this.#text)
                void this.#go(!event.shiftKey, false);
        });
        find("search-back").addEventListener("click", () => void this.#go(true, false));
        find("search-on").addEventListener("click", () => void this.#go(false, false));
        find("search-close").addEventListener("click", () => this.show(false));
        for (const [id, option] of [["search-case", "caseSensitive"], ["search-word", "wholeWord"], ["search-regex", "regex"]]) {
            find(id).addEventListener("click", () => {
                this.#options[option] = !this.#options[option];
                find(id).setAttribute("aria-pressed", String(this.#options[option]));
                void this.#go(true, true);
            });
        }
    }
    show(shown) {
        find("search").hidden = !shown;
        if (shown) {
            this.#text.focus();
            this.#text.select();
            void this.#load().catch(() => null);
            return;
        }
        this.#addon?.clearDecorations();
        this.#screen.term.clearSelection();
        focusView();
    }
    async #go(up, again) {
        let search;
        try {
            search = await this.#load();
        }
        catch {
            return this.#say("can't be loaded");
        }
        if (find("search").hidden)
            return;
        const { term } = this.#screen;
        const text = this.#text.value;
        if (again) {
            search.clearDecorations();
            term.clearSelection();
        }
        if (text === "") {
            search.clearDecorations();
            return this.#say("");
        }
        const options = { ...this.#options, decorations: MARKS };
        try {
            if (this.#options.regex)
                new RegExp(text);
            const found = up ? search.findPrevious(text, options) : search.findNext(text, options);
            if (!found)
                this.#say("not found");
        }
        catch {
            this.#say("not a regular expression");
        }
    }
    #load() {
        this.#loading ??= this.#fetch().catch((error) => {
            this.#loading = null;
            throw error;
        });
        return this.#loading;
    }
    async #fetch() {
        const { SearchAddon } = await loadSearch();
        const addon = new SearchAddon();
        this.#screen.term.loadAddon(addon);
        addon.onDidChangeResults(({ resultIndex, resultCount }) => this.#count(resultIndex, resultCount));
        this.#addon = addon;
        return addon;
    }
    #count(index, count) {
        if (this.#text.value === "")
            return this.#say("");
        if (count === 0)
            return this.#say("not found");
        this.#say(index < 0 ? `${count}+ matches` : `${index + 1} of ${count}`);
    }
    #say(text) {
        find("search-count").textContent = text;
    }
}
