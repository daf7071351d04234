// The help sheet: all keys, and what the mouse does.

import { h } from "../../dom.js";
import { KEYS } from "./shortcuts.js";

const MOUSE = [
  ["Left button", "Tool in hand; with Ctrl the crosshair, with Shift erase"],
  ["Right button", "Window: across is contrast, upwards is brightness"],
  ["Middle button, or Alt", "Pan"],
  ["Wheel", "Slices; with Ctrl zoom"],
  ["Double click", "With the crosshair: one view large, and back"],
  ["Two fingers", "Pan and zoom"],
];

const sheet = (title, rows) => h("section", {}, h("h3", {}, title),
  h("dl", {}, rows.map(([key, words]) => h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, words)))));

/** Opens the sheet; it is made anew each time and leaves nothing behind. */
export function openHelp() {
  const groups = [...new Set(KEYS.map((row) => row.group))];
  const close = h("button", { type: "button", class: "primary", onclick: () => dialog.close() }, "Close");
  const dialog = h("dialog", { class: "help", "aria-labelledby": "help-title" },
    h("div", { class: "head" }, h("h2", { id: "help-title" }, "Keys and mouse"), close),
    h("div", { class: "sheets" }, sheet("Mouse", MOUSE),
      groups.map((group) => sheet(group, [
        ...KEYS.filter((row) => row.group === group && row.words).map((row) => [row.key.replace("Arrow", ""), row.words]),
        ...(group === "Label in hand" ? [["1 to 9", "The label of that number"]] : []),
      ]))));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
