// What the parts of the panel share.
import { h } from "../../dom.js";

/** A button for a command: where it cannot be used it says why, as its tooltip and when it is pressed. */
export function commandButton(command, words, run, attributes = {}) {
  return h("button", { type: "button", "data-command": command, onclick: run, ...attributes }, words);
}

/** Shows on all buttons of commands in an element whether they can be used. */
export function markCommands(element, reasons) {
  for (const button of element.querySelectorAll("[data-command]")) {
    const why = reasons[button.dataset.command] ?? "";
    button.setAttribute("aria-disabled", String(Boolean(why)));
    button.title = why || button.dataset.words || "";
  }
}

export const clock = (time) => new Date(time).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
