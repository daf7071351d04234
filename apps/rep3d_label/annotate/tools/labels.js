// The table of labels: which is in hand, how large each is, which are shown, and which are locked.

import { h, number } from "../../dom.js";
import { keyOf } from "./shortcuts.js";

const ICONS = {
  shown: ["M1 8s3-5 7-5 7 5 7 5-3 5-7 5-7-5-7-5z", "M8 6a2 2 0 1 0 0 4 2 2 0 0 0 0-4z"],
  hidden: ["M1 8s3-5 7-5 7 5 7 5-3 5-7 5-7-5-7-5z", "M2 14 14 2"],
  locked: ["M3 7h10v7H3z", "M5 7V5a3 3 0 0 1 6 0v2"],
  free: ["M3 7h10v7H3z", "M5 7V4a3 3 0 0 1 5.6-1.5"],
};

const icon = (name) => h("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, ICONS[name].map((d) => h("path", { d })));

/** Builds the table into an element. Returns {rebuild(), measure()}: all anew, or the volumes alone. */
export function buildLabels(element, stage) {
  const { settings } = stage;
  let cells = new Map();

  /** `place` is -1 for a value that nothing can be painted with. */
  function row({ value, name, color }, place) {
    const volume = h("td", { class: "n" });
    cells.set(value, volume);
    const hidden = stage.hidden.has(value), locked = stage.isLocked(value);
    const choose = () => settings.set("value", value);
    const pick = h("input", { type: "radio", name: "label-in-hand", value, "aria-label": name, onchange: choose });
    pick.checked = settings.get("value") === value;
    const toggle = (pressed, words, key, picture, onclick) => h("button", {
      type: "button", class: "icon", "aria-pressed": String(pressed), "aria-label": `${words} ${name}`, title: `${words} (${key})`, onclick,
    }, icon(picture));
    return h("tr", { class: pick.checked ? "chosen" : "", "data-value": value },
      h("th", { scope: "row" }, h("label", { title: place < 0 ? "No label stands for it" : place < 9 ? `Paint with it (${place + 1})` : "Paint with it" },
        place < 0 ? "" : pick, h("i", { class: "chip", "--c": `rgb(${color.join(" ")})` }), name)),
      volume,
      h("td", {}, toggle(hidden, hidden ? "Show" : "Hide", keyOf("label.show"), hidden ? "hidden" : "shown", () => stage.hide(value)),
        toggle(locked, locked ? "Unlock" : "Lock", keyOf("label.lock"), locked ? "locked" : "free", () => stage.lock(value))));
  }

  function measure() {
    for (const [value, cell] of cells) {
      const count = stage.isOpen ? stage.map.counts[value] : -1;
      if (cell.dataset.count === String(count)) continue;
      cell.dataset.count = String(count);
      cell.textContent = count < 0 ? "" : millilitres(count * stage.grid.millilitres);
    }
  }

  function rebuild() {
    cells = new Map();
    const focused = document.activeElement?.getAttribute("aria-label");
    const { beyond } = stage;
    element.replaceChildren(
      h("table", { class: "labels" },
        h("thead", {}, h("tr", {}, h("th", {}, "Label"), h("th", { class: "n" }, "ml"),
          h("th", {}, h("span", { class: "out" }, "Shown and locked")))),
        h("tbody", {}, stage.entries.map(row), beyond.map((entry) => row(entry, -1)))),
      beyond.length
        ? h("p", { class: "message" }, `No label stands for ${beyond.map(({ value }) => value).join(", ")}, so this cannot be submitted as it is. ` +
          "Nothing paints over such voxels while they are locked: unlock them, then erase them or paint over them.")
        : "");
    measure();
    if (focused) [...element.querySelectorAll("[aria-label]")].find((found) => found.getAttribute("aria-label") === focused)?.focus();
  }

  settings.addEventListener("change", ({ detail }) => { if (detail === "value") rebuild(); });
  rebuild();
  return { rebuild, measure };
}

/** Millilitres with three digits or so: the smallest structure that was painted is not 0. */
export const millilitres = (ml) => number(ml, ml >= 100 ? 0 : ml >= 10 ? 1 : ml >= 1 ? 2 : 3);
