// Training, and the versions that it makes: started, stopped and put into use from here where the role may.
import { away, mistake, wordsOf } from "./foreground.js";

export class Learning {
  #server;
  #view;
  #session;
  #refused;
  #ask;

  constructor({ server, view, session, ask, refused }) {
    this.#server = server;
    this.#view = view;
    this.#session = session;
    this.#refused = refused;
    this.#ask = ask;
  }

  train = () => {
    const { resumable } = this.#view.now.training;
    return this.#do("train", () => this.#server.train(this.#view.now.model.name, resumable ? { resume: true } : {}),
      `${resumable ? "The training goes on where it was." : "The training has begun."} You can go on segmenting meanwhile.`);
  };

  trainAnew = async () => {
    if (this.#refused("train_anew") || (await this.#ask("train_anew")) !== "anew") return;
    await this.#do("train_anew", () => this.#server.train(this.#view.now.model.name, { resume: false }), "The training has begun.");
  };

  stop = () => this.#do("stop_training", () => this.#server.stopTraining(), "The training stops.");

  publish = (version) => this.#do("publish", () => this.#server.publish(this.#view.now.model.name, version), `Version ${version} is in use now.`);

  rollBack = () => this.#do("roll_back", () => this.#server.rollBack(this.#view.now.model.name), "The version before is in use again.");

  async #do(command, work, words) {
    if (this.#refused(command)) return;
    try {
      await work();
      this.#view.say("info", words);
    } catch (error) {
      this.#view.say("error", wordsOf(error), away(error));
      mistake(error);
    }
    await this.#session.refresh();
  }
}
