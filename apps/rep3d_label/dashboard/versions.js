// The learning curve and the table of versions, with publish, roll back, delete and download.
import { act, address, ask } from "./api.js";
import { curveKey, learningCurve } from "./charts.js";
import { $, bars, confirmed, dice, duration, fill, h, plural, when } from "./dom.js";

let versions = [];
let byLabels = false;
let all = false;
const FEW = 8;

export async function loadVersions(page) {
  const answer = await ask("GET", `/rep3d/models/${encodeURIComponent(page.model)}/versions`);
  const was = new Set(answer.publications.map((entry) => entry.version));
  versions = answer.versions.map((v) => ({
    ...v,
    scores: v.scores || {},
    labels: (v.cases || []).length,
    // As the gate compares: the mean over cases, each of which counts alike.
    mean: v.mean_score ?? null,
    current: v.version === answer.published,
    // It may have been published by hand, whatever was decided about it first.
    published: v.version === answer.published || was.has(v.version),
  }));
  versions.sort((a, b) => String(a.created).localeCompare(String(b.created)) || serial(a) - serial(b));
}
const serial = (v) => Number(String(v.version).replace(/\D/g, "")) || 0;

export const publishedVersion = () => versions.find((v) => v.current);

export function showVersions(page) {
  showCurve(page);
  const rows = versions.toReversed();
  $("rollback").hidden = versions.length < 2 || !versions.some((v) => v.current);
  const shown = all ? rows : rows.filter((v, i) => i < FEW || v.current);
  fill($("version-list"), [page.model, rows, all], () => rows.length ? [table(page, shown), shown.length < rows.length && more(page, rows.length)]
    : h("p", { class: "empty" }, "No version yet. Each training that ends well makes one."));
}

const more = (page, count) => h("button", { type: "button", class: "quiet", onclick: () => { all = true; showVersions(page); } }, `Show all ${count} versions`);

export function showCurve(page) {
  const host = $("curve");
  const width = host.clientWidth || 320;
  const colours = Object.fromEntries(page.state.models[page.model].labels.map((label) => [label.name, label.colour]));
  const names = page.state.models[page.model].labels.map((label) => label.name).filter((name) => versions.some((v) => name in v.scores));
  fill(host, [page.model, versions, byLabels, width], () => versions.length
    ? [learningCurve(versions, byLabels, colours, width), curveKey(versions, names, colours), perLabel()]
    : h("p", { class: "empty" }, "The curve begins with the first version. Scores appear once there are enough annotated cases to hold some out: they are never guessed."));
  $("by-version").setAttribute("aria-pressed", String(!byLabels));
  $("by-labels").setAttribute("aria-pressed", String(byLabels));
}

function perLabel() {
  const now = versions.find((v) => v.current && v.mean !== null);
  return now && [h("p", { class: "caption" }, `Dice per label of the published version, ${now.version}`), bars(now.scores)];
}

function table(page, rows) {
  const heads = ["Version", "Mean Dice", "Change", "Learned from", "Made", "Decision", ""];
  return h("table", {}, h("thead", {}, h("tr", {}, heads.map((name) => h("th", { scope: "col" }, name || h("span", { class: "out" }, "Actions"))))),
    h("tbody", {}, rows.map((v) => row(page, v))));
}

function row(page, v) {
  const difference = v.decision?.difference;
  const path = `/rep3d/models/${encodeURIComponent(page.model)}/versions/${encodeURIComponent(v.version)}`;
  const publish = h("button", { type: "button", class: "quiet", onclick: () => change(page, publish, v, path) }, "Publish");
  const remove = h("button", { type: "button", class: "quiet danger", onclick: () => drop(page, remove, v, path) }, "Delete");
  const from = { adopted: "taken in", starter: "starter model" }[v.origin] || (v.attribution && "from the starter model");
  return h("tr", { "data-version": v.version },
    h("th", { scope: "row" }, v.version, v.current && h("span", { class: "badge" }, "published"), from && h("span", { class: "muted n", title: v.attribution }, from)),
    h("td", { "data-name": "Mean Dice" }, v.mean === null ? h("span", { class: "muted" }, "not measured")
      : h("details", {}, h("summary", {}, h("b", {}, dice(v.mean))), bars(v.scores))),
    h("td", { "data-name": "Change" }, typeof difference === "number"
      ? h("span", { class: difference > 0 ? "up" : difference < 0 ? "down" : "" }, (difference > 0 ? "+" : "") + difference.toFixed(3))
      : h("span", { class: "muted" }, "–")),
    h("td", { "data-name": "Learned from" }, h("div", {}, plural(v.labels, "label"),
      h("div", { class: "muted" }, v.parent ? `on from ${v.parent}` : "from nothing"))),
    h("td", { "data-name": "Made", class: "n" }, h("div", {}, when(v.created), typeof v.minutes === "number" && h("div", { class: "muted" },
      `in ${duration(v.minutes * 60)}`))),
    h("td", { "data-name": "Decision", class: "why" }, v.decision?.reason || h("span", { class: "muted" }, "none recorded")),
    h("td", { class: "n" }, h("div", { class: "buttons" }, !v.current && publish,
      h("a", { class: "button quiet", href: address(`${path}/checkpoint`), download: true }, "Checkpoint"),
      h("a", { class: "button quiet", href: address(`${path}/onnx`), download: true }, "ONNX"), !v.current && remove)));
}

/** Asks, then does something to the versions and says `done()`. */
async function sure(page, button, title, text, yes, work, done) {
  if (!(await confirmed(title, text, yes))) return;
  await act(button, $("versions-message"), async () => {
    await work();
    await page.refresh();
    return done();
  });
}

const change = (page, button, v, path) => sure(page, button, `Publish ${v.version}?`,
  `From then on ${v.version} answers every request. ${v.mean === null ? "It was not measured." : `Its mean Dice is ${dice(v.mean)}.`} ${
    v.decision?.reason ? `What was decided about it: ${v.decision.reason}.` : ""}`, `Publish ${v.version}`,
  () => ask("POST", `${path}/publish`, { reason: "published by hand on the dashboard" }), () => `${v.version} is published.`);

const drop = (page, button, v, path) => sure(page, button, `Delete ${v.version}?`, "Its weights and scores are removed from the disk. This cannot be taken back.",
  `Delete ${v.version}`, () => ask("DELETE", path), () => `${v.version} is deleted.`);

export function wireVersions(page) {
  for (const [id, value] of [["by-version", false], ["by-labels", true]]) {
    $(id).addEventListener("click", () => { byLabels = value; showCurve(page); });
  }
  $("rollback").addEventListener("click", () => {
    const { version } = publishedVersion();
    sure(page, $("rollback"), "Roll back?", `${version} is taken back, and the version that was published before it answers every request again. ${version} is kept.`, "Roll back",
      () => ask("POST", `/rep3d/models/${encodeURIComponent(page.model)}/rollback`, {}), () => `Rolled back to ${page.state.models[page.model].version}.`);
  });
}
