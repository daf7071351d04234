// Where the window is as small as a phone's: one part of the page at a time beside the image, chosen in a strip, which also has
// what is needed again and again while painting. CSS shows the strip, and hides the other parts, in such windows only.

import { h } from "../../dom.js";

const PARTS = [["tools", "Tools"], ["labels", "Label"], ["case", "Case"], ["more", "Train"]];

/** Builds it into an element; `data-part` of its parent is the part that is shown, "" for none. Returns {refresh()}. */
export function buildStrip(element, stage) {
  const work = element.parentElement;
  let untouched = true;
  const show = (part) => {
    work.dataset.part = part;
    for (const [name, button] of Object.entries(buttons)) button.setAttribute("aria-expanded", String(name === part));
  };
  const choose = (part) => {
    untouched = false;
    show(work.dataset.part === part ? "" : part);
  };
  const does = (name, picture, words) => h("button", { type: "button", class: "quiet", "aria-label": words, onclick: () => stage.command(name) }, picture);
  const buttons = Object.fromEntries(PARTS.map(([part, words]) => [part, h("button", { type: "button", class: "quiet part", "aria-controls": part, onclick: () => choose(part) }, words)]));
  const undo = does("undo", "↶", "Undo"), slices = [does("slice.down", "▼", "Previous slice"), does("slice.up", "▲", "Next slice")];
  element.replaceChildren(...Object.values(buttons), undo, ...slices);

  function refresh() {
    undo.disabled = !stage.map?.done.length;
    for (const button of slices) button.disabled = !stage.isOpen;
    const inHand = stage.entries.find(({ value }) => value === stage.settings.get("value"));
    buttons.labels.replaceChildren(...(inHand ? [h("i", { class: "chip", "--c": `rgb(${inHand.color.join(" ")})` }), h("span", {}, inHand.name)] : ["Label"]));
    buttons.labels.setAttribute("aria-label", inHand ? `Label: ${inHand.name}` : "Label");
    if (untouched) show(stage.isOpen ? "tools" : "case"); // until somebody chooses
  }

  stage.settings.addEventListener("change", ({ detail }) => { if (detail === "value") refresh(); });
  refresh();
  return { refresh };
}
