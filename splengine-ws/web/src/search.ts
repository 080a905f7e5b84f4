// Finding text in the terminal.

import type { ISearchOptions } from "@xterm/addon-search";
import { find } from "./dom.js";
import type { Screen } from "./terminal.js";
import { focusView } from "./views.js";

const MARKS = {
  matchBackground: "#6b5300",
  matchOverviewRuler: "#d29922",
  activeMatchBackground: "#b35900",
  activeMatchColorOverviewRuler: "#ff8c1a",
};

type Addon = InstanceType<Awaited<ReturnType<typeof loadSearch>>["SearchAddon"]>;

export class FindBar {
  #screen: Screen;
  /** What finds is loaded when something is looked for first. */
  #addon: Addon | null = null;
  #loading: Promise<Addon> | null = null;
  #text = find<HTMLInputElement>("search-text");
  #options = { caseSensitive: false, wholeWord: false, regex: false };

  constructor(screen: Screen) {
    this.#screen = screen;
    this.#text.addEventListener("input", () => void this.#go(true, true));
    find("search").addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.show(false);
      if (event.key === "Enter" && event.target === this.#text) void this.#go(!event.shiftKey, false);
    });
    find("search-back").addEventListener("click", () => void this.#go(true, false));
    find("search-on").addEventListener("click", () => void this.#go(false, false));
    find("search-close").addEventListener("click", () => this.show(false));
    for (const [id, option] of [["search-case", "caseSensitive"], ["search-word", "wholeWord"], ["search-regex", "regex"]] as const) {
      find(id).addEventListener("click", () => {
        this.#options[option] = !this.#options[option];
        find(id).setAttribute("aria-pressed", String(this.#options[option]));
        void this.#go(true, true);
      });
    }
  }

  show(shown: boolean): void {
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

  /** To the next match above, as one looks for what was printed last, or below. */
  async #go(up: boolean, again: boolean): Promise<void> {
    let search: Addon;
    try {
      search = await this.#load();
    } catch {
      return this.#say("can't be loaded");
    }
    if (find("search").hidden) return;
    const { term } = this.#screen;
    const text = this.#text.value;
    // What is looked for changes while it is typed: from the end, each time.
    if (again) {
      // Else the addon keeps the matches of other options.
      search.clearDecorations();
      term.clearSelection();
    }
    if (text === "") {
      search.clearDecorations();
      return this.#say("");
    }
    const options: ISearchOptions = { ...this.#options, decorations: MARKS };
    try {
      if (this.#options.regex) new RegExp(text);
      const found = up ? search.findPrevious(text, options) : search.findNext(text, options);
      if (!found) this.#say("not found");
    } catch {
      this.#say("not a regular expression");
    }
  }

  #load(): Promise<Addon> {
    this.#loading ??= this.#fetch().catch((error: unknown) => {
      // The next one tries again.
      this.#loading = null;
      throw error;
    });
    return this.#loading;
  }

  async #fetch(): Promise<Addon> {
    const { SearchAddon } = await loadSearch();
    const addon = new SearchAddon();
    this.#screen.term.loadAddon(addon);
    addon.onDidChangeResults(({ resultIndex, resultCount }) => this.#count(resultIndex, resultCount));
    this.#addon = addon;
    return addon;
  }

  #count(index: number, count: number): void {
    if (this.#text.value === "") return this.#say("");
    if (count === 0) return this.#say("not found");
    this.#say(index < 0 ? `${count}+ matches` : `${index + 1} of ${count}`);
  }

  #say(text: string): void {
    find("search-count").textContent = text;
  }
}
