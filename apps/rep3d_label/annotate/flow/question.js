// Questions, with the answer that loses nothing as the default.
import { h } from "../../dom.js";

/**
 * Asks; resolves with the key of the answer, with `stay` where the dialog is dismissed.
 * @param {string} title
 * @param {string|Array<Node|string>} text
 * @param {Array<[string, string]>} choices key and words; the first one is chosen by Enter.
 */
export function ask(title, text, choices, stay) {
  const buttons = choices.map(([key, words], place) => h("button", { value: key, class: place === choices.length - 1 && "primary", autofocus: place === 0 }, words));
  const dialog = h("dialog", { class: "question", "aria-labelledby": "question-title" }, h("form", { method: "dialog" },
    h("h2", { id: "question-title" }, title), h("div", { class: "words" }, text), h("div", { class: "buttons" }, buttons)));
  document.body.append(dialog);
  dialog.returnValue = stay;
  dialog.showModal();
  return new Promise((done) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      done(dialog.returnValue || stay);
    }, { once: true });
  });
}

/** A dialog that stays until it is closed; returns it, and `close`. */
export function sheet(title, ...content) {
  const dialog = h("dialog", { class: "sheet", "aria-label": title },
    h("div", { class: "head" }, h("h2", {}, title), h("form", { method: "dialog" }, h("button", { class: "quiet", "aria-label": "Close" }, "Close"))), content);
  document.body.append(dialog);
  dialog.addEventListener("close", () => dialog.remove(), { once: true });
  dialog.showModal();
  return dialog;
}
