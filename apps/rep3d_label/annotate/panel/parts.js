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

/** Where a server without keys is told whose labels they are. */
export const nameField = (settings, words, id) => h("label", { class: "field" }, `${words} `, h("input", { id, class: "person", value: settings.name, maxlength: 200, autocomplete: "name",
  oninput: ({ target }) => {
    settings.name = target.value.trim();
    for (const other of document.querySelectorAll("input.person")) if (other !== target) other.value = settings.name;
  } }));

export const clock = (time) => new Date(time).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
