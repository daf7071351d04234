// The cases and their states: filters, pages, thumbnails, review, history.
import { act, address, ask } from "./api.js";
import { meanDice } from "./charts.js";
import { $, dice, facts, fill, h, number, plural, when } from "./dom.js";

const PAGE = matchMedia("(max-width: 48rem)").matches ? 8 : 24;
export const STATES = { new: "New", leased: "Reserved", predicted: "Predicted", submitted: "Submitted", reviewed: "Reviewed", unusable: "Unusable" };

let cases = [];
let state = "";
let find = "";
let first = 0;

export async function loadCases(page) {
  cases = await ask("GET", `/rep3d/cases?model=${encodeURIComponent(page.model)}`);
}

export function showCases(page) {
  const counts = Object.fromEntries(Object.keys(STATES).map((name) => [name, 0]));
  for (const item of cases) counts[item.state] = (counts[item.state] || 0) + 1;
  fill($("filters"), [counts, state, cases.length], () => [["", "All", cases.length], ...Object.entries(STATES).map(([key, words]) => [key, words, counts[key]])]
    .filter(([key, , count]) => key !== "unusable" || count || state === key)
    .map(([key, words, count]) => h("button", { type: "button", "data-state": key || "all", "aria-pressed": String(state === key),
      onclick: () => { state = key; first = 0; showCases(page); } }, words, h("b", {}, number(count)))));
  const wanted = cases.filter((item) => (!state || item.state === state) && item.id.toLowerCase().includes(find));
  first = Math.min(first, Math.max(0, Math.ceil(wanted.length / PAGE) - 1) * PAGE);
  const shown = wanted.slice(first, first + PAGE);
  fill($("case-list"), [shown, page.state.models[page.model].version], () => shown.length ? shown.map((item) => card(page, item))
    : h("li", { class: "empty" }, cases.length ? "No case fits." : "No images yet. Put NIfTI files into the studies folder, or send them with the 3D Slicer module: they appear here by themselves."));
  fill($("pager"), [first, wanted.length], () => wanted.length > PAGE && [
    h("span", {}, `${number(first + 1)}–${number(first + shown.length)} of ${plural(wanted.length, "case")}`),
    h("div", { class: "buttons" }, turn(page, "Previous", -PAGE, first === 0), turn(page, "Next", PAGE, first + PAGE >= wanted.length))]);
}

const turn = (page, words, step, disabled) => h("button", { type: "button", class: "quiet", disabled, onclick: () => {
  first += step;
  showCases(page);
  $("cases").scrollIntoView();
} }, words);

function card(page, item) {
  const path = `/rep3d/cases/${encodeURIComponent(item.id)}`;
  const picture = h("div", { class: "picture" });
  // The address changes with what is drawn, so that an old picture is not shown for a new label.
  const drawn = encodeURIComponent(item.time || item.predicted?.time || "");
  picture.append(h("img", { src: address(`${path}/thumbnail.png?size=168&of=${drawn}`), alt: "", width: 84, height: 84, loading: "lazy",
    decoding: "async", onerror: () => picture.replaceChildren("no picture") }));
  const message = $("cases-message");
  const button = (words, work) => {
    const made = h("button", { type: "button", class: "quiet", onclick: () => act(made, message, work) }, words);
    return made;
  };
  const review = (method) => async () => {
    await ask(method, `${path}/review`, method === "POST" ? {} : undefined);
    await page.refresh(true);
  };
  return h("li", { "data-case": item.id }, picture,
    h("div", {}, h("h3", {}, item.id), h("span", { class: `state ${item.state}` }, STATES[item.state] || item.state),
      h("div", { class: "facts-line" }, lines(item).map((line) => h("div", {}, line)))),
    (item.state === "submitted" || item.state === "reviewed") && h("div", { class: "buttons" },
      item.state === "submitted" ? button("Mark reviewed", review("POST")) : button("Undo review", review("DELETE")),
      button("History", () => showHistory(item, path))));
}

function lines(item) {
  const found = [];
  if (item.error || item.image?.error) found.push(item.error || item.image.error);
  if (item.label_error) found.push(`Its label is of no use: ${item.label_error}`);
  if (item.lease) found.push(`reserved for ${item.lease.user || "somebody"} until ${when(item.lease.until)}`);
  if (item.labels) found.push(`by ${item.author || "unknown"}${item.time ? `, ${when(item.time)}` : ""}`);
  if (item.review) found.push(`reviewed by ${item.review.user || "somebody"}, ${when(item.review.time)}`);
  if (item.state === "predicted" && item.predicted) found.push(`by ${item.predicted.model || "a model"}, version ${item.predicted.version}`);
  const agreed = meanDice(item.prediction?.dice);
  if (agreed !== null) found.push(`Dice of label and prediction ${dice(agreed)} (${item.prediction.version})`);
  if (item.role) found.push(item.role === "validation" ? "held out for validation" : "trains the model");
  if (typeof item.score === "number") found.push(`score ${item.score.toFixed(3)}`);
  return found;
}

/** Files of the studies folder that are not used, those of one reason together. */
export function showPassedOver(found) {
  const box = $("passed-over");
  box.hidden = !found.total;
  fill(box.querySelector("summary"), found.total, () => [`${plural(found.total, "file")} of the studies folder not used`]);
  fill(box.querySelector("ul"), found.groups, () => found.groups.map(({ reason, remedy, count, files }) => {
    const more = count > files.length ? ` and ${number(count - files.length)} more` : "";
    return h("li", {}, `${files.join(", ")}${more}: ${reason} ${remedy}`);
  }));
}

async function showHistory(item, path) {
  const entries = await ask("GET", `${path}/history`);
  $("history-title").textContent = `Labels of ${item.id}`;
  $("history-list").replaceChildren(h("ol", {}, entries.map((entry) => h("li", {}, facts(
    ["State", entry.reason || "–"], ["Author", entry.author || "unknown"], ["Made", when(entry.time)], ["Tag", entry.tag],
    entry.replaced && ["Since then", when(entry.replaced)],
    entry.source?.version && ["Drawn on version", entry.source.version]),
  entry.entry && h("a", { class: "button quiet", href: address(`${path}/history/${encodeURIComponent(entry.entry)}`), download: true }, "Download")))));
  $("history").showModal();
}

export function wireCases(page) {
  $("find").addEventListener("input", () => { find = $("find").value.trim().toLowerCase(); first = 0; showCases(page); });
}
