// What runs in the foreground, one at a time: begun only where it may be, shown, cancelled, and its failures said.
import { Refused, Unreachable } from "../../api.js";
import { Damaged, TooLarge } from "../wire/voxels.js";
import { enabled } from "./rules.js";

/** Thrown where the user has decided to leave all as it is. */
export const STAY = new Error("the user stays");

export const sentence = (text) => (/[.!?]$/.test(text) ? text : `${text}.`);

/** Whether the server did not take part: it could not be reached, or the login had ended. */
export const away = (error) => error instanceof Unreachable || (error instanceof Refused && error.status === 401);

/** What went wrong, in words for whoever draws. */
export const wordsOf = (error) => (error.status === 401 ? "Your login has ended: log in again, then repeat this." : sentence(error.message));

/** Shows on the console what is none of the errors that we know: a mistake of ours. */
export function mistake(error) {
  if (![Refused, Unreachable, Damaged, TooLarge].some((kind) => error instanceof kind)) console.warn(error);
}

export class Foreground {
  #abort = null;
  #view;
  #ask;

  /** @param {(question: string, about: object) => Promise<string>} ask asks the user, see questions.js.
   *  @param {() => void} lookAgain asks the server how things are. */
  constructor(view, ask, lookAgain) {
    this.lookAgain = lookAgain;
    this.#view = view;
    this.#ask = ask;
  }

  /** Whether a command may not be used now, which is said then. */
  refused(command) {
    const why = enabled(this.#view.now)[command];
    if (why) this.#view.say("warning", why);
    return Boolean(why);
  }

  /** Runs a command; what goes wrong is said, by `failed` where it is given, and the case in hand stays. */
  async run(name, text, work, failed = (error) => this.failed(error)) {
    if (this.refused(name)) return;
    const controller = this.#abort = new AbortController();
    this.#view.update({ activity: { name, text, progress: null, cancellable: true }, message: null });
    try {
      await work(controller.signal);
    } catch (error) {
      if (error !== STAY) failed(error);
    } finally {
      this.#abort = null;
      this.#view.update({ activity: null });
    }
  }

  cancel() {
    if (!this.refused("cancel")) this.#abort?.abort();
  }

  progress(text, progress = null, cancellable = true) {
    const { activity } = this.#view.now;
    if (activity) this.#view.update({ activity: { ...activity, text, progress, cancellable } });
  }

  /** Shows how much of a transfer is done. */
  telling = (words) => (done, total) =>
    this.progress(`${words}, ${Math.round(done / 1e6)} of ${Math.round(total / 1e6)} MB`, total ? done / total : null);

  /** Asks in the middle of a command. */
  async asked(question, about) {
    const { text } = this.#view.now.activity ?? {};
    this.progress("Waiting for your answer", null, false);
    const answer = await this.#ask(question, about);
    this.progress(text);
    return answer;
  }

  /** Says what failed; what is said of a server that was away goes when it is back. */
  failure(before, error, after = "") {
    this.#view.say("error", [before, wordsOf(error), after].filter(Boolean).join(" "), away(error));
    if (away(error)) this.lookAgain();
  }

  failed(error) {
    const cancelled = error.name === "AbortError";
    if (cancelled) this.#view.say("warning", "Cancelled.");
    else this.failure("", error);
    if (!cancelled) mistake(error);
  }
}
