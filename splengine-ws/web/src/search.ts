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

export class FindBar {
  #screen: Screen;
  #text = find<HTMLInputElement>("search-text");
  #options = { caseSensitive: false, wholeWord: false, regex: false };

  constructor(screen: Screen) {
    this.#screen = screen;
    screen.search.onDidChangeResults(({ resultIndex, resultCount }) => this.#count(resultIndex, resultCount));
    this.#text.addEventListener("input", () => this.#go(true, true));
    find("search").addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.show(false);
      if (event.key === "Enter" && event.target === this.#text) this.#go(!event.shiftKey, false);
    });
    find("search-back").addEventListener("click", () => this.#go(true, false));
    find("search-on").addEventListener("click", () => this.#go(false, false));
    find("search-close").addEventListener("click", () => this.show(false));
    for (const [id, option] of [["search-case", "caseSensitive"], ["search-word", "wholeWord"], ["search-regex", "regex"]] as const) {
      find(id).addEventListener("click", () => {
        this.#options[option] = !this.#options[option];
        find(id).setAttribute("aria-pressed", String(this.#options[option]));
        this.#go(true, true);
      });
    }
  }

  show(shown: boolean): void {
    find("search").hidden = !shown;
    if (shown) {
      this.#text.focus();
      this.#text.select();
      return;
    }
    this.#screen.search.clearDecorations();
    this.#screen.term.clearSelection();
    focusView();
  }

  /** To the next match above, as one looks for what was printed last, or below. */
  #go(up: boolean, again: boolean): void {
    const { search, term } = this.#screen;
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

  #count(index: number, count: number): void {
    if (this.#text.value === "") return this.#say("");
    if (count === 0) return this.#say("not found");
    this.#say(index < 0 ? `${count}+ matches` : `${index + 1} of ${count}`);
  }

  #say(text: string): void {
    find("search-count").textContent = text;
  }
}
