// How the terminal is drawn: by WebGL where there is one, else as elements of the page.

import { joinedRanges } from "./graphemes.js";

type Term = InstanceType<typeof Terminal>;
type Addon = InstanceType<Awaited<ReturnType<typeof loadWebgl>>["WebglAddon"]>;

export class Renderer {
  #term: Term;
  #addon: Addon | null = null;
  #wanted = false;
  #changed: () => void;

  /** `changed`: cells may have another size now. */
  constructor(term: Term, changed: () => void) {
    this.#term = term;
    this.#changed = changed;
    term.registerCharacterJoiner(joinedRanges);
  }

  get isWebgl(): boolean {
    return this.#addon !== null;
  }

  /** Draws by WebGL, or not; where it can't, the page's elements stay. */
  async use(webgl: boolean): Promise<void> {
    this.#wanted = webgl;
    if (!webgl) return this.#drop();
    if (this.#addon !== null || !canWebgl()) return;
    try {
      const { WebglAddon } = await loadWebgl();
      if (!this.#wanted || this.#addon !== null) return;
      const addon = new WebglAddon();
      // A card that was taken away, as after a sleep: the page's elements draw from now on.
      addon.onContextLoss(() => this.#drop());
      this.#term.loadAddon(addon);
      this.#addon = addon;
      this.#changed();
    } catch {
      this.#drop();
    }
  }

  #drop(): void {
    const addon = this.#addon;
    this.#addon = null;
    if (!addon) return;
    addon.dispose();
    this.#changed();
  }
}

function canWebgl(): boolean {
  try {
    return document.createElement("canvas").getContext("webgl2") !== null;
  } catch {
    return false;
  }
}
