// The worker that fetches and sends voxels, as promises.
import { address, login, Refused, Unreachable } from "../../api.js";
import { Damaged, TooLarge } from "./voxels.js";

const KINDS = { Refused, Unreachable, Damaged, TooLarge };

export class Transfers {
  #worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  #waiting = new Map();
  #number = 0;

  constructor() {
    this.#worker.addEventListener("message", ({ data }) => this.#came(data));
    this.#worker.addEventListener("error", (event) => this.#broke(event));
  }

  /** Fetches voxels; `tell` gets bytes done and in all, `signal` ends it with an AbortError. */
  receive(path, { method, body, signal, tell } = {}) {
    return this.#ask("receive", { url: address(path), method, body }, [], signal, tell);
  }

  /** Sends a label (its bytes go to the worker: give a copy). */
  send(path, { label, shape, affine, params, signal }) {
    return this.#ask("send", { url: address(path), label, shape, affine, params }, [label.buffer], signal);
  }

  /** A label as a small Blob, to keep; its bytes go to the worker. */
  keep(label) {
    return this.#ask("keep", { label }, [label.buffer]);
  }

  /** The label of such a Blob. */
  unkeep(packed) {
    return this.#ask("unkeep", { packed });
  }

  #ask(task, args, moved = [], signal = null, tell = null) {
    const number = ++this.#number;
    return new Promise((done, failed) => {
      const abort = () => this.#worker.postMessage({ number, abort: true });
      this.#waiting.set(number, { done, failed, tell, end: () => signal?.removeEventListener("abort", abort) });
      this.#worker.postMessage({ number, task, ...args }, moved);
      if (signal?.aborted) abort();
      signal?.addEventListener("abort", abort);
    });
  }

  #came({ number, done, total, value, error }) {
    const waiting = this.#waiting.get(number);
    if (total !== undefined) {
      waiting?.tell?.(done, total);
      return;
    }
    this.#waiting.delete(number);
    waiting.end();
    if (error?.status === 401) login.ended();
    if (!error) waiting.done(value);
    else if (error.kind === "AbortError") waiting.failed(new DOMException("Cancelled", "AbortError"));
    else waiting.failed(error.kind ? new KINDS[error.kind](error.words, error.status, error.reason) : new Error(error.words));
  }

  #broke(event) {
    const error = new Error(`The page's worker ended: ${event.message || "it could not be loaded"}. Reload the page.`);
    for (const { failed, end } of this.#waiting.values()) {
      end();
      failed(error);
    }
    this.#waiting.clear();
  }
}
