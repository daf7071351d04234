// Training with its progress and Dice, the versions it makes, and the options.
import { bars, dice, duration, failures, fill, h, mean, number, when } from "../../dom.js";
import { PHASES } from "../../training.js";
import { commandButton, nameField } from "./parts.js";

const FEW = 8;

export class LearningPanel {
  #training = h("div", { id: "training" });
  #versions = h("div", { id: "versions" });
  #options = h("div", { id: "options" });
  #actions;
  #settings;

  /** @param actions train, trainAnew, stop, publish, rollBack, chooseModel, chooseStrategy, showUncertainty.
   *  @param settings `name` and `uncertainty`, remembered. */
  constructor(host, actions, settings) {
    this.#actions = actions;
    this.#settings = settings;
    const part = (title, element, open) => h("details", { open }, h("summary", {}, h("h2", {}, title)), element);
    host.replaceChildren(part("Training", this.#training, true), part("Versions", this.#versions), part("Options", this.#options));
  }

  show(view) {
    const { training, model } = view;
    fill(this.#training, [training, model?.version, view.role], () => this.#trainingOf(view));
    fill(this.#versions, [view.versionRows, view.role], () => this.#versionsOf(view));
    fill(this.#options, [view.models.map(({ name }) => name), model?.name, view.strategies, view.strategy, view.user], () => this.#optionsOf(view));
  }

  #trainingOf({ training: { active, resumable, stats }, model }) {
    const share = stats.iterations ? stats.iteration / stats.iterations : null;
    const score = mean(Object.values(stats.validation ?? {}));
    return [
      h("p", { class: "hint" }, stats.phase ? [PHASES[stats.phase] ?? stats.phase, active && share !== null && `step ${number(stats.iteration)} of ${number(stats.iterations)}`,
        active && stats.eta_seconds && `${duration(stats.eta_seconds)} left`].filter(Boolean).join(", ") : model?.version ? `Version ${model.version} is in use.` : "Never trained."),
      active && h("progress", { max: 1, value: stats.phase === "training" || stats.phase === "validating" ? share : null, "aria-label": "Training" }),
      score !== null && [h("p", { class: "caption" }, `Dice on held-out cases, mean ${dice(score)}`), bars(stats.validation)],
      stats.error && h("p", { class: "message error" }, String(stats.error)),
      !active && stats.decision?.reason && h("p", { class: "hint" }, `${stats.version_made ?? "The new version"}: ${stats.decision.reason}`),
      failures(stats.skipped),
      h("div", { class: "buttons" }, active ? commandButton("stop_training", "Stop", this.#actions.stop) : commandButton("train", resumable ? "Resume" : "Train", this.#actions.train),
        !active && resumable && commandButton("train_anew", "Train anew", this.#actions.trainAnew)),
    ];
  }

  #versionsOf({ versionRows = [], model }) {
    if (!versionRows.length) return h("p", { class: "hint" }, "No version yet. Each training that ends well makes one.");
    return [h("ul", { class: "versions" }, versionRows.slice(0, FEW).map((row) => h("li", { "data-version": row.version },
      h("span", {}, h("b", {}, row.version), ` Dice ${dice(row.mean_score)}`, h("span", { class: "muted" }, ` ${when(row.created)}`)),
      row.version === model?.version ? h("span", { class: "badge" }, "in use")
        : commandButton("publish", "Publish", () => this.#actions.publish(row.version), { class: "quiet" })))),
    h("div", { class: "buttons" }, commandButton("roll_back", "Roll back", this.#actions.rollBack, { class: "quiet" }))];
  }

  #optionsOf({ models, model, strategies, strategy, user }) {
    const settings = this.#settings;
    const choice = (words, id, values, chosen, change) => h("label", { class: "field" }, `${words} `, h("select", { id, onchange: (event) => change(event.target.value) },
      values.map(([value, shown]) => h("option", { value, selected: value === chosen }, shown))));
    return [
      models.length > 1 && choice("Model", "model", models.map(({ name }) => [name, name]), model.name, this.#actions.chooseModel),
      strategies.length > 1 && choice("Next sample by", "strategy", strategies.map(({ name }) => [name, name]), strategy, this.#actions.chooseStrategy),
      h("label", { class: "field" }, h("input", { type: "checkbox", id: "uncertainty", checked: settings.uncertainty, onchange: (event) => { settings.uncertainty = event.target.checked; } }), " Compute uncertainty with Auto-segment"),
      user === null && nameField(settings, "Your name", "name"),
    ];
  }
}
