// Other tabs of this browser: two that work on one case should know of each other. Each keeps unsent work of its own, so
// nothing is lost either way; but what is submitted last replaces what was submitted first.

const WAIT_MS = 250; // a tab answers within a few

export class Tabs {
  #channel = new BroadcastChannel("rep3d-annotate");
  #held = null;
  #met;
  #heard = new Set();

  /** @param {(place: string) => void} met called when another tab opens what this one holds. */
  constructor(met) {
    this.#met = met;
    this.#channel.addEventListener("message", ({ data: { ask, held } }) => {
      if (ask && ask === this.#held) {
        this.#channel.postMessage({ held: ask });
        this.#met(ask);
      }
      if (held) this.#heard.add(held);
    });
  }

  /** Whether another tab holds a place (server and case). */
  async elsewhere(place) {
    this.#heard.delete(place);
    this.#channel.postMessage({ ask: place });
    await new Promise((done) => { setTimeout(done, WAIT_MS); });
    return this.#heard.has(place);
  }

  /** This tab works there from now on; null: nowhere. */
  hold(place) {
    this.#held = place;
  }
}
