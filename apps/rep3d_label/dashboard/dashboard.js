// The page: asks the server how things are, shows it, and asks again; never while nobody looks.
import { ask, Refused } from "./api.js";
import { loadCases, showCases, showPassedOver, wireCases } from "./cases.js";
import { $, dice, fill, h, number, plural, when } from "./dom.js";
import { batchRuns, showBatch, showScores, wireJobs } from "./jobs.js";
import { isRunning, showTraining, wireTraining } from "./training.js";
import { loadVersions, publishedVersion, showCurve, showVersions, wireVersions } from "./versions.js";

const BUSY_MS = 2_000, IDLE_MS = 10_000, LOST_MS = 3_000;

const page = { state: null, model: null, refresh };
const loaded = { cases: null, versions: null };
let timer = 0, lostSince = null, asking = null;

/** Asks for the state and shows it; lists only when they changed, or `lists` is set. */
async function refresh(lists = false) {
  // One at a time; a second wish waits and asks anew: what it wants to see may be newer.
  while (asking) await asking.catch(() => {});
  asking = update(lists);
  try { await asking; } finally { asking = null; }
}

async function update(lists) {
  const state = await ask("GET", "/rep3d/status");
  page.state = state;
  if (!(page.model in state.models)) page.model = state.default_model;
  const model = state.models[page.model];
  const versions = `${page.model} ${model.versions_stamp} ${model.version}`;
  const cases = `${page.model} ${state.cases.stamp} ${model.version} ${model.scores.updated}`;
  await Promise.all([
    (lists || loaded.cases !== cases) && loadCases(page).then(() => { loaded.cases = cases; }),
    loaded.versions !== versions && loadVersions(page).then(() => { loaded.versions = versions; }),
  ]);
  show();
}

function show() {
  const { state } = page;
  const model = state.models[page.model];
  $("server-version").textContent = state.server.version;
  $("logout").hidden = !state.user;
  $("user").textContent = state.user ?? "";
  $("folder").textContent = state.server.folder;
  document.title = `${state.server.folder} – Rep3D Label`;
  const names = Object.keys(state.models);
  $("model-chooser").hidden = names.length < 2;
  fill($("model"), [names, page.model], () => names.map((name) => h("option", { value: name, selected: name === page.model }, name)));
  fill($("tiles"), [model.version, model.error, publishedVersion(), state.cases, state.server.device_name], () => tiles(model, state));
  fill($("labels"), model.labels, () => model.labels.map((label) => h("li", {}, h("span", { class: "chip", "--c": label.colour }), label.name)));
  showTraining(model, state);
  showVersions(page);
  showCases(page);
  showBatch(model);
  showScores(model);
  const { problems } = state.server;
  $("damaged").hidden = !(problems.length || state.damaged.length || state.warnings.length);
  fill($("damaged"), [problems, state.damaged, state.warnings], () => [
    ...problems.map((words) => h("li", {}, words)),
    ...state.damaged.map(damage),
    ...state.warnings.map(warning),
  ]);
  showPassedOver(state.passed_over);
  $("foot").textContent = [`Rep3D Label ${state.server.version}.`, model.attribution].filter(Boolean).join(" ");
}

function damage({ file, kept, lost }) {
  return h("li", {}, `${file} is damaged. Lost: ${lost}. ${kept ? `The damaged file is kept as ${kept}.` : "It was left as it is."}`);
}

function warning({ id, reason }) {
  return h("li", {}, `Image ${id} may show its patient's name: ${reason}. Look at it, and remove it if it does.`);
}

function tiles(model, state) {
  const tile = (name, big, sub, kind) => h("div", kind ? { class: kind } : {}, h("dt", {}, name), h("dd", { class: "big" }, big), h("dd", { class: "sub" }, sub));
  const { cases } = state;
  const usable = cases.total - cases.unusable;
  const record = publishedVersion();
  const score = record?.mean ?? null;
  return [
    model.error ? tile("Published version", "damaged", model.error, "bad")
      : tile("Published version", model.version || "none yet", model.version ? `since ${when(model.created)}` : "train one to begin", "first"),
    tile("Mean Dice", dice(score), model.version ? (score === null ? "not measured" : `${plural((record.validation_cases || []).length, "case")} held out`) : "no version yet"),
    tile("Annotated", `${number(cases.labelled)} of ${number(usable)}`,
      `${number(usable - cases.labelled)} without a label${cases.unusable ? `, ${number(cases.unusable)} unusable` : ""}`),
    tile("Device", state.server.device_name, `${model.preset} network`),
  ];
}

function lost(error) {
  const box = $("connection");
  // A refusal is an answer: the server is there, and says what is wrong.
  if (error instanceof Refused) {
    box.textContent = `The server answers with an error: ${error.message}`;
  } else {
    lostSince ??= new Date();
    const words = `Server not reachable since ${lostSince.toLocaleTimeString("en-GB")}. Trying again.`;
    if (box.textContent !== words) box.textContent = words;
  }
  box.hidden = false;
}

/** One round: ask, show, and plan the next one. */
async function round() {
  clearTimeout(timer);
  if (document.hidden) return;
  let pause = LOST_MS;
  try {
    await refresh();
    lostSince = null;
    $("connection").hidden = true;
    const models = Object.values(page.state.models);
    const busy = models.some((m) => isRunning(m.training) || batchRuns(m.batch) || m.scores?.running);
    pause = busy ? BUSY_MS : IDLE_MS;
  } catch (error) {
    lost(error);
    if (!error.message) console.error(error);
  }
  clearTimeout(timer);
  timer = setTimeout(round, pause);
}

wireTraining(page);
wireVersions(page);
wireCases(page);
wireJobs(page);
$("model").addEventListener("change", () => { page.model = $("model").value; round(); });
document.addEventListener("visibilitychange", round);
let resizing = 0;
addEventListener("resize", () => {
  clearTimeout(resizing);
  resizing = setTimeout(() => { if (page.state) { showCurve(page); showTraining(page.state.models[page.model], page.state); } }, 150);
});
round();
