// How the terminal is drawn: by WebGL where there is one, else as elements of the page.

import { joinedRanges } from "./graphemes.js";

type Term = InstanceType<typeof Terminal>;
type Addon = InstanceType<Awaited<ReturnType<typeof loadWebgl>>["WebglAddon"]>;

export class Renderer {
  #term: Term;
  #addon: Addon | null = null;
  #wanted = false;
  #isLoading = false;
  #changed: () => void;
  #isDrawn: Promise<void>;

  /**
   * `changed`: cells may have another size now. `isDrawn` is fulfilled when something is to be seen:
   * WebGL is not waited for with it.
   */
  constructor(term: Term, changed: () => void, isDrawn: Promise<void>) {
    this.#term = term;
    this.#changed = changed;
    this.#isDrawn = isDrawn;
    term.registerCharacterJoiner(joinedRanges);
  }

  /** Whether it draws by WebGL, or will as soon as that is loaded. */
  get isWebgl(): boolean {
    return this.#addon !== null || this.isChanging;
  }

  /** What draws now is not what will. */
  get isChanging(): boolean {
    return this.#isLoading && this.#wanted;
  }

  /** Draws by WebGL, or not; where it can't, the page's elements stay. */
  async use(webgl: boolean): Promise<void> {
    this.#wanted = webgl;
    if (!webgl) return this.#drop();
    if (this.#addon !== null || this.#isLoading || typeof WebGL2RenderingContext === "undefined") return;
    this.#isLoading = true;
    try {
      await this.#isDrawn;
      if (!canWebgl()) throw new Error("there is no WebGL");
      const { WebglAddon } = await loadWebgl();
      this.#isLoading = false;
      if (!this.#wanted) return this.#changed();
      const addon = new WebglAddon();
      // A card that was taken away, as after a sleep: the page's elements draw from now on.
      addon.onContextLoss(() => this.#drop());
      this.#term.loadAddon(addon);
      this.#addon = addon;
      this.#changed();
    } catch {
      this.#isLoading = false;
      this.#drop();
      this.#changed();
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
