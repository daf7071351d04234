// Batch inference, and the scores by which the next case is chosen.
import { act, ask } from "./api.js";
import { $, duration, facts, failures, fill, h, number, when } from "./dom.js";

const PHASES = { never: "Never run", running: "Running", stopping: "Stopping", stopped: "Stopped", done: "Done", error: "Failed" };

export const batchRuns = (batch) => batch?.phase === "running" || batch?.phase === "stopping";

export function showBatch(model) {
  const batch = model.batch || { phase: "never" };
  const running = batchRuns(batch);
  const phase = $("batch-phase");
  if (phase.textContent !== PHASES[batch.phase]) phase.textContent = PHASES[batch.phase] || batch.phase;
  phase.className = `phase ${running ? "on" : batch.phase === "error" ? "off" : ""}`;
  const failed = Object.keys(batch.failed || {}).length;
  const finished = (batch.done || 0) + (batch.kept || 0) + (batch.labelled || 0) + failed;
  fill($("batch-progress"), batch, () => batch.phase === "never"
    ? h("p", { class: "empty" }, model.version ? "No batch inference has run yet." : "There is no trained model yet to segment with.")
    : [h("progress", { max: batch.total || 1, value: finished, "aria-label": "Batch inference progress" }),
      facts(["Segmented", `${number((batch.done || 0) + (batch.kept || 0))} of ${number(batch.total)}`], ["Failed", number(failed)],
        running && ["Time left", duration(batch.eta_seconds)], ["Version", batch.version], ["Tag", batch.tag],
        !running && ["Ended", when(batch.updated)],
        batch.current && ["Now", batch.current, true], batch.error && ["Reason", batch.error, true]),
      failures(batch.failed)]);
  const start = $("batch-start");
  start.textContent = batch.phase === "stopped" || batch.phase === "error" ? "Resume" : "Start";
  start.hidden = running;
  if (!start.hasAttribute("aria-busy")) start.disabled = !model.version;
  $("batch-stop").hidden = !running;
}

export function showScores(model) {
  const scores = model.scores || {};
  fill($("scores"), [scores, model.version], () => {
    if (!model.version) return h("p", { class: "empty" }, "There is no trained model yet to score with.");
    const behind = scores.version && scores.version !== model.version;
    return [
      scores.running && h("progress", { max: scores.to_score || 1, value: scores.scored ?? null, "aria-label": "Scoring progress" }),
      facts(["Scored", `${number(scores.scored || 0)} of ${number(scores.unlabelled)}`],
        scores.version && ["By version", scores.version], scores.updated && ["When", when(scores.updated)],
        behind && ["State", `older than the published ${model.version}: not used until they are computed anew`, true]),
      scores.top?.length > 0 && [h("p", { class: "caption" }, "Most useful next"), h("div", { class: "bars" }, scores.top.map(([id, value]) => [
        h("span", {}, id), h("i", { "--v": Math.max(0, Math.min(1, value)) }), h("b", {}, value.toFixed(3))]))],
      failures(scores.failed)];
  });
  const start = $("score-start");
  if (!start.hasAttribute("aria-busy")) start.disabled = !model.version || Boolean(scores.running);
}

export function wireJobs(page) {
  const batch = () => `/rep3d/models/${encodeURIComponent(page.model)}/batch`;
  const wire = (button, message, method, path, words) => $(button).addEventListener("click", () => act($(button), $(message), async () => {
    await ask(method, path(), method === "POST" ? {} : undefined);
    await page.refresh();
    return words;
  }));
  wire("batch-start", "batch-message", "POST", batch);
  wire("batch-stop", "batch-message", "DELETE", batch);
  wire("score-start", "active-message", "POST", () => "/scoring/", "Scoring has begun.");
}
