// Elements and words. Text from the server goes through textContent only: names of cases may contain anything.

export const $ = (id) => document.getElementById(id);

/** An element: h("p", {class: "hint", onclick: f}, "text", child, ...). Children that are null or false are left out. */
export function h(tag, attributes = {}, ...children) {
  const svg = SVG_TAGS.has(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if ((value ?? false) === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(9).filter((child) => (child ?? false) !== false));
  return element;
}
const SVG_TAGS = new Set(["svg", "g", "path", "line", "circle", "text", "title", "rect"]);

/** Replaces an element's content, but only when `key` changed: focus and selections survive an update. */
export function fill(element, key, make) {
  const text = JSON.stringify(key);
  if (element.dataset.key === text) return;
  element.dataset.key = text;
  element.replaceChildren(...[make()].flat(9).filter(Boolean));
}

export const dice = (value) => (typeof value === "number" ? value.toFixed(3) : "–");
export const number = (value, digits = 0) =>
  typeof value === "number" ? value.toLocaleString("en", { maximumFractionDigits: digits }) : "–";
export const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;

export function when(time) {
  const date = new Date(time);
  if (!time || Number.isNaN(date.getTime())) return "–";
  const today = date.toDateString() === new Date().toDateString();
  const clock = date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  const day = date.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" });
  return today ? `today ${clock}` : `${day} ${clock}`;
}

export function duration(seconds) {
  if (typeof seconds !== "number" || !Number.isFinite(seconds)) return "–";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

/** The mean of the numbers among the values, or null where there is none: nothing is invented. */
export function mean(values) {
  const numbers = values.filter((value) => typeof value === "number" && Number.isFinite(value));
  return numbers.length ? numbers.reduce((sum, value) => sum + value, 0) / numbers.length : null;
}

export const facts = (...pairs) =>
  h("dl", { class: "facts" }, pairs.filter(Boolean).map(([name, value, wide]) =>
    h("div", wide ? { class: "all" } : {}, h("dt", {}, name), h("dd", {}, value))));

/** Dice per label as bars; labels without a figure say so. */
export function bars(scores) {
  return h("div", { class: "bars" }, Object.entries(scores || {}).map(([name, value]) => [
    h("span", {}, name),
    typeof value === "number" ? h("i", { "--v": value }) : h("span", { class: "muted" }, "not measured"),
    h("b", {}, dice(value)),
  ]));
}

export const failures = (failed) => {
  const entries = Object.entries(failed || {});
  return entries.length > 0 && h("details", {}, h("summary", {}, `${plural(entries.length, "case")} left out, and why`),
    h("ul", { class: "failed" }, entries.map(([id, reason]) => h("li", {}, h("b", {}, id), " ", String(reason)))));
};

/** Asks before something that cannot be taken back easily. */
export function confirmed(title, text, yes) {
  const dialog = $("confirm");
  $("confirm-title").textContent = title;
  $("confirm-text").textContent = text;
  $("confirm-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true }));
}
