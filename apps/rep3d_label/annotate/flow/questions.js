// The questions of docs/workflow.md, in words. The answer that loses nothing comes first and is what Escape means.
import { when } from "../../dom.js";
import { ask } from "./question.js";

const BACK = ["back", "Go back"];

const QUESTIONS = {
  lose_edits: ({ id }) => ["Edits cannot be kept", `This browser keeps nothing at the moment. Going on would lose what you drew on ${id}.`,
    [["stay", "Stay here"], ["go", "Go on and lose it"]]],
  other_tab: ({ id }) => ["Open in another tab", `${id} is open in another tab of this browser. Each tab keeps its own unsent work, but the label that is submitted last replaces the one before.`,
    [["stay", "Do not open it"], ["go", "Open it here, too"]]],
  discard_draft: ({ image, time }) => ["Throw unsent work away", `Throw away the unsent work of ${when(time)} on ${image}? It cannot be had back.`,
    [["keep", "Keep it"], ["discard", "Throw it away"]]],
  train_anew: () => ["Train anew", "The training that was stopped or interrupted can be resumed. A new one gives it up for good.",
    [BACK, ["anew", "Give it up and train anew"]]],
  strangers: ({ id, values }) => ["A part that no label stands for",
    `The label of ${id} has voxels with ${values}, which no label of this model stands for, so it cannot be submitted like this. `
    + "You can go back and paint over them (unlock them first), or choose another model under Options. Or clear them: they become background, and the rest is submitted. "
    + "A label that the server has already stays in the history of the case.",
    [BACK, ["clear", "Clear them and submit"]]],
  empty: ({ id }) => ["Nothing is segmented", `The label says that none of the structures is in ${id}. Submit it all the same?`,
    [BACK, ["submit", "Submit it empty"]]],
  meanwhile: ({ id, present }) => ["Someone submitted a label meanwhile",
    `${present.author ?? "Somebody"} submitted a label of ${id} (${when(present.time)}) while you worked on it. It is shown as an outline over yours. `
    + "Yours would become the label, and theirs stay in the history of the case; or you take theirs, and yours stays unsent work.",
    [["back", "Look at both first"], ["theirs", "Take theirs"], ["submit", "Submit mine"]]],
  lent: ({ words }) => ["Someone else works on this", `${words} Submit your label all the same? Theirs, if there is one, stays in the history.`,
    [BACK, ["submit", "Submit all the same"]]],
};

/** Asks; resolves with the key of the answer. */
export function askQuestion(key, about = {}) {
  const [title, text, choices] = QUESTIONS[key](about);
  return ask(title, text, choices, choices[0][0]);
}
