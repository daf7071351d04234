// The reservation of the case in hand: renewed while someone works, and told when it is lost.
import { Refused } from "../../api.js";

const LOOK_MS = 20_000, RENEW_MS = 5 * 60_000;

export class Lease {
  #server;
  #view;
  #image = null;
  #until = 0; // by the server's clock, in ms
  #renewed = 0;
  #worked = false;
  #renewing = false;
  ahead = 0; // ms that the server's clock is ahead of this computer's

  constructor(server, view) {
    this.#server = server;
    this.#view = view;
    setInterval(() => this.#look(), LOOK_MS);
  }

  /** The case in hand is reserved until then (ISO 8601), or is not ("" or null). */
  hold(image, until) {
    this.#image = image;
    this.#note(until);
  }

  let() {
    this.#image = null;
  }

  /** Notes that somebody works. */
  working() {
    this.#worked = true;
    if (this.#image && Date.now() + this.ahead >= this.#until) this.#renew();
  }

  #note(until) {
    this.#until = until ? Date.parse(until) : 0;
    this.#renewed = Date.now();
    this.#worked = false;
    this.#view.updateCase({ reserved: until || "", leaseLost: "" });
  }

  #look() {
    if (!this.#image || this.#view.now.connection !== "ready") return;
    const now = Date.now();
    if (this.#worked && now - this.#renewed >= RENEW_MS) this.#renew();
    else if (this.#until && now + this.ahead >= this.#until && !this.#view.now.case?.leaseLost) {
      this.#view.updateCase({ leaseLost: "Your reservation has ended: others may get this case. It is renewed as soon as you draw." });
    }
  }

  async #renew() {
    if (this.#renewing) return;
    this.#renewing = true;
    const image = this.#image;
    try {
      const { until } = await this.#server.reserve(image);
      if (image === this.#image) this.#note(until);
    } catch (error) {
      this.#renewed = Date.now(); // asked again after a while
      if (image === this.#image && error instanceof Refused && error.status === 409) {
        this.#view.updateCase({ leaseLost: `Your reservation is lost. ${error.message} Your edits are kept; on Submit you are asked.` });
      }
    } finally {
      this.#renewing = false;
    }
  }
}
