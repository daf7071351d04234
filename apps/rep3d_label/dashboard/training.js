// The training that runs, or ran last, and the buttons that start and stop one.
import { act, ask } from "./api.js";
import { lossCurve } from "./charts.js";
import { $, bars, dice, duration, facts, failures, fill, h, number } from "./dom.js";

export const PHASES = {
  starting: "Starting", waiting: "Waiting", preparing: "Preparing the cases", training: "Training", validating: "Measuring",
  saving: "Saving", comparing: "Comparing with the published version", publishing: "Publishing", scoring: "Scoring the cases without a label",
  done: "Done", error: "Failed", stopped: "Stopped", interrupted: "Interrupted",
};
const ENDED = new Set(["done", "error", "stopped", "interrupted"]);
export const isRunning = (training) => Boolean(training?.phase) && !ENDED.has(training.phase);

export function showTraining(model, state) {
  const training = model.training || {};
  const running = isRunning(training);
  const phase = $("train-phase");
  const words = training.phase ? PHASES[training.phase] || training.phase : "Never trained";
  if (phase.textContent !== words) phase.textContent = words;
  phase.className = `phase ${running ? "on" : training.phase === "error" ? "off" : ""}`;
  fill($("train-progress"), [training, state.cases.labelled], () => progress(training, running, state));
  const losses = training.losses || [];
  const width = $("train-curve").clientWidth || 320;
  fill($("train-curve"), [losses.length > 1 && losses, width], () => losses.length > 1 && [
    h("p", { class: "caption" }, "Loss"), lossCurve(losses, width)]);
  fill($("train-scores"), training.validation, () => training.validation && Object.keys(training.validation).length > 0 && [
    h("p", { class: "caption" }, `Dice on the validation cases${typeof training.best === "number" ? `, best mean so far ${dice(training.best)}` : ""}`),
    bars(training.validation)]);
  const start = $("train-start");
  start.textContent = training.resumable ? "Resume training" : "Start training";
  $("train-anew").hidden = running || !training.resumable;
  start.hidden = running && training.phase !== "scoring";  // a new training ends the scoring
  $("train-stop").hidden = !running;
  for (const id of ["iterations", "minutes"]) $(id).parentElement.hidden = start.hidden;
}

function progress(training, running, state) {
  if (!training.phase) {
    return h("p", { class: "empty" }, state.cases.labelled
      ? "There are labels to learn from. Start a training: it works from one annotated case on."
      : "Nothing to learn from yet: submit at least one label, then start a training.");
  }
  const share = training.iterations ? training.iteration / training.iterations : null;
  const epoch = training.epochs ? `${number(training.epoch)} of ${number(training.epochs)}` : null;
  return [
    running && h("progress", { max: 1, value: training.phase === "training" || training.phase === "validating" ? share : null, "aria-label": "Training progress" }),
    facts(
      ["Iteration", `${number(training.iteration)} of ${number(training.iterations)}`],
      epoch && ["Epoch", epoch],
      ["Loss", typeof training.loss === "number" ? training.loss.toFixed(4) : "–"],
      running && ["Time left", duration(training.eta_seconds)],
      typeof training.elapsed_seconds === "number" && training.elapsed_seconds > 0 && ["Time taken", duration(training.elapsed_seconds)],
      ["Cases", training.validation_cases ? `${number(training.cases)}, ${number(training.validation_cases)} held out` : number(training.cases)],
      training.found > 0 && Object.keys(training.skipped || {}).length > 0 && ["Labelled", `${number(training.found)}, ${number(Object.keys(training.skipped).length)} left out`],
      training.memory_mb && ["Memory", `${number(training.memory_mb / 1024, 1)} GB`],
      training.device && ["Device", training.device],
      training.phase === "scoring" && training.to_score && ["Scored", `${number(training.scored)} of ${number(training.to_score)}`],
      training.resumed_from && ["Resumed", `at iteration ${number(training.resumed_from)}`],
      training.resolution && ["Resolution", training.resolution, true],
      training.forecast && ["Steps", training.forecast, true],
      training.shortfall && ["Too short", training.shortfall, true],
      training.set_aside && ["Set aside", training.set_aside, true],
      training.error && ["Reason", String(training.error), true],
      training.decision?.reason && ["Result", `${training.version_made || "The new version"}: ${training.decision.reason}`, true],
    ),
    failures(training.skipped),
  ];
}

export function wireTraining(page) {
  const message = $("training-message");
  const begin = (button, params) => act(button, message, async () => {
    const iterations = $("iterations").value.trim(), minutes = $("minutes").value.trim();
    if (iterations && !params.resume) params.iterations = Number(iterations);
    if (minutes && !params.resume) params.max_minutes = Number(minutes);
    await ask("POST", `/train/${encodeURIComponent(page.model)}`, params);
    await page.refresh();
  });
  $("train-form").addEventListener("submit", (event) => {
    event.preventDefault();
    // A run that is resumed goes on with the settings that it began with.
    begin($("train-start"), page.state.models[page.model].training.resumable ? { resume: true } : {});
  });
  $("train-anew").addEventListener("click", () => begin($("train-anew"), { resume: false }));
  $("train-stop").addEventListener("click", () => act($("train-stop"), message, () => ask("DELETE", "/train/").then(() => page.refresh())));
}
