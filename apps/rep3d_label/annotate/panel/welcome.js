// The five sentences of a first visit.
import { h } from "../../dom.js";
import { sheet } from "../flow/question.js";
import { nameField } from "./parts.js";

const SENTENCES = [
  "Next sample fetches the image that would teach the model most, and keeps it for you.",
  "Choose a label at the side and paint with the brush in any of the slices; the wheel goes through them, and the question mark lists all keys.",
  "Once a model has been trained, Auto-segment proposes a segmentation that you check and correct.",
  "Submit sends your label to the server, where every earlier one stays in the history.",
  "What you draw is kept in this browser within two seconds, so a reload, a crash or a lost server costs nothing.",
];

/** @param settings where a name is remembered; false where the server knows who it is. */
export function welcome(settings) {
  sheet("How it works", h("ol", { class: "welcome" }, SENTENCES.map((words) => h("li", {}, words))),
    settings && nameField(settings, "Your name, which is put beside your labels (if you like; later under Options)"));
}
