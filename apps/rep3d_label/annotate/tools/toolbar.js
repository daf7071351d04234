// The tools: what is drawn with, how it looks, and what can be done with a whole label.

import { h } from "../../dom.js";
import { keyOf } from "./shortcuts.js";
import { SIZES } from "./settings.js";

const hint = (name, words) => (keyOf(name) ? `${words} (${keyOf(name)})` : words);

/** Builds the tools into an element, and keeps them as the settings say. Returns {say(words), refresh()}. */
export function buildToolbar(element, stage, commands) {
  const { settings } = stage;
  const follow = [];
  const on = (name, show) => { follow.push([name, show]); };

  const does = (name, text, words = text) => h("button", {
    type: "button", class: "quiet", title: hint(name, words), "data-command": name, onclick: () => commands[name](),
  }, text);
  const choice = (setting, value, name, text, words = text) => {
    const button = h("button", { type: "button", title: hint(name, words), onclick: () => settings.set(setting, value) }, text);
    on(setting, (now) => button.setAttribute("aria-pressed", String(now === value)));
    return button;
  };
  const check = (setting, name, text, words = text) => {
    const box = h("input", { type: "checkbox", onchange: () => settings.set(setting, box.checked) });
    on(setting, (now) => { box.checked = Boolean(now); });
    return h("label", { title: hint(name, words) }, box, " ", text);
  };
  const slider = (setting, text, [min, max, step], shown, to = Number, from = Number) => {
    const oninput = () => settings.set(setting, to(input.value));
    const input = h("input", { type: "range", min, max, step, "aria-label": text, oninput });
    const value = h("output", {});
    on(setting, (now) => { input.value = String(from(now)); value.textContent = shown(now); });
    return h("label", { class: "slider" }, h("span", {}, text), input, value);
  };
  const only = (tools, ...children) => {
    const part = h("div", { class: "part" }, children);
    on("tool", (now) => { part.hidden = !tools.includes(now); });
    return part;
  };

  const number = (text, setting, put, get) => {
    const input = h("input", { type: "number", step: "any", "aria-label": text, onchange: () => {
      if (Number.isFinite(input.valueAsNumber)) settings.set(setting, put(settings.get(setting), input.valueAsNumber));
      show(setting);
    } });
    on(setting, (now) => { input.value = String(Number(get(now).toPrecision(5))); });
    return input;
  };
  const amount = (text, setting) => number(text, setting, (now, value) => Math.max(0, value), (now) => now);
  const limit = (end, text) => number(text, "limits", (now, value) => now.with(end, value), (now) => now[end]);

  const onchange = () => stage.chooseWindow(presets.value);
  const presets = h("select", { "aria-label": "Window", title: hint("window.next", "Window"), onchange });
  const message = h("p", { class: "message good", role: "status" });
  const undo = does("undo", "Undo"), redo = does("redo", "Redo");
  const doubt = h("div", { class: "part" }, h("h3", {}, "Uncertainty"),
    slider("doubting", "Strength", [0, 1, 0.1], (now) => `${Math.round(100 * now)} %`), does("doubt.next", "Next uncertain place"));
  const compared = h("span", {});
  const comparison = h("div", { class: "part" }, h("h3", {}, "Compared"), check("comparing", "compare.show", compared));

  element.replaceChildren(
    h("div", { class: "part switch", role: "group", "aria-label": "Tool" },
      choice("tool", "move", "tool.move", "Crosshair"), choice("tool", "brush", "tool.brush", "Brush"),
      choice("tool", "eraser", "tool.eraser", "Eraser"),
      choice("tool", "contour", "tool.contour", "Contour", "Draw around, the inside is filled"),
      choice("tool", "fill", "tool.fill", "Fill", "Fill what is connected with the clicked voxel and looks alike")),
    only(["brush", "eraser"],
      slider("size", "Size", [0, SIZES.length - 1, 1], (now) => (now ? `${now} mm` : "1 voxel"), (at) => SIZES[at],
        (size) => SIZES.findIndex((known) => known >= size)),
      check("ball", "ball", "Ball", "Paint a ball, through neighbouring slices")),
    only(["fill"],
      slider("tolerance", "Likeness", [0.01, 0.5, 0.01], (now) => `± ${Math.round(100 * now)} %`),
      check("everywhere", "fill.everywhere", "All slices", "Fill through all slices")),
    only(["brush", "eraser", "contour", "fill"],
      check("limited", "limit", "Only grey values", "Paint only voxels whose grey value lies within the limits"),
      h("div", { class: "limits" }, limit(0, "Lowest grey value"), " to ", limit(1, "Highest grey value"))),
    h("div", { class: "part buttons" }, undo, redo, does("help", "? Keys", "All keys")),
    message,
    h("details", { class: "part", open: true }, h("summary", {}, "Label in hand"),
      h("div", { class: "buttons" },
        does("between", "Fill between slices", "Fill the slices between those that are labelled, in the view last used"),
        does("grow", "Grow", "Grow all labels from what was painted into what looks alike, as far as they meet"),
        does("islands.largest", "Keep largest part", "Keep its largest part only")),
      h("div", { class: "limits" }, does("islands.small", "Remove parts"), "below", amount("Smallest part in ml", "smallest"), "ml"),
      h("div", { class: "limits" }, does("smooth", "Smooth"), "by", amount("Smoothing in mm", "sigma"), "mm")),
    h("details", { class: "part", open: true }, h("summary", {}, "View"),
      h("div", { class: "switch", role: "group", "aria-label": "Layout" },
        choice("layout", "three", "layout", "Three"), choice("layout", "axial", "layout", "Axial"),
        choice("layout", "coronal", "layout", "Coronal"), choice("layout", "sagittal", "layout", "Sagittal")),
      h("div", { class: "row" }, presets, does("fit", "Fit", "Show all of the image again")),
      slider("opacity", "Labels", [0, 1, 0.1], (now) => `${Math.round(100 * now)} %`),
      h("div", { class: "switch", role: "group", "aria-label": "Labels are drawn" },
        choice("outline", 0, "", "Filled"), choice("outline", 1, "", "Both"), choice("outline", 2, "", "Outline")),
      h("div", { class: "row" }, check("smooth", "interpolate", "Smooth voxels"), check("crosshair", "crosshair", "Crosshair"),
        check("solid", "solid", "3D", "3D view of a coarser copy, to look at"))),
    doubt, comparison);

  const show = (name) => { for (const [setting, apply] of follow) if (!name || setting === name) apply(settings.get(setting)); };
  settings.addEventListener("change", ({ detail }) => show(detail));

  function refresh() {
    show();
    const { done = [], undone = [] } = stage.map ?? {};
    for (const [button, steps, words] of [[undo, done, "Undo"], [redo, undone, "Redo"]]) {
      button.disabled = !steps.length;
      button.title = hint(words.toLowerCase(), steps.length ? `${words}: ${steps.at(-1).words}` : words);
    }
    presets.replaceChildren(...Object.keys(stage.windows ?? {}).map((name) => h("option", {}, name)), h("option", { hidden: true }, "By hand"));
    presets.value = stage.windowName || "By hand";
    doubt.hidden = !stage.hasDoubt;
    comparison.hidden = !stage.compared;
    compared.textContent = stage.compared;
    for (const part of element.querySelectorAll("button, input, select")) {
      if (part !== undo && part !== redo) part.disabled = !stage.isOpen && part.dataset.command !== "help";
    }
  }

  refresh();
  return { refresh, say: (words) => { message.textContent = words; } };
}
