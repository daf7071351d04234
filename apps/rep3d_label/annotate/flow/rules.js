// What may be done now, and what becomes of the edits: one function from what is shown to each of them. The table in
// docs/workflow.md says the same, for this page and for 3D Slicer, and a test holds both to it.

/** Everything that can be asked for. */
export const COMMANDS = [
  "next_sample", "open_case", "auto_segment", "cancel", "submit", "restore_label", "restore_draft", "discard_draft", "review",
  "compare", "choose_channel", "train", "train_anew", "stop_training", "publish", "roll_back",
];

/** What runs in the foreground, one at a time: each changes the case in hand. */
const FOREGROUND = new Set(["next_sample", "open_case", "auto_segment", "submit", "restore_label", "restore_draft", "discard_draft", "choose_channel"]);
/** What needs no server. */
const OFFLINE = new Set(["cancel", "discard_draft"]);
/** What puts another case, or another label, in the place of the one in hand. */
const LEAVING = new Set(["next_sample", "open_case", "restore_label", "restore_draft"]);

const RANKS = ["user", "annotator", "reviewer", "admin"];
const NEEDS = { review: "reviewer", train: "admin", train_anew: "admin", stop_training: "admin", publish: "admin", roll_back: "admin" };

/** For each command "" if it can be used now, else the reason, in words, which the button shows. */
export const enabled = (view) => Object.fromEntries(COMMANDS.map((command) => [command, reason(command, view)]));

function reason(command, view) {
  if (!OFFLINE.has(command) && view.connection !== "ready") return CONNECTION[view.connection];
  const needed = NEEDS[command];
  if (needed && RANKS.indexOf(view.role) < RANKS.indexOf(needed)) return `That is for ${needed}s of this server.`;
  if (FOREGROUND.has(command) && view.activity) return `Wait until this has ended, or cancel it: ${view.activity.text}`;
  return CHECKS[command]?.(view) ?? "";
}

const CONNECTION = {
  connecting: "Wait until the server has answered.",
  lost: "The server cannot be reached. Your edits are kept; it is asked again by itself.",
  signed_out: "Log in again first. Your edits are kept.",
  other_version: "The server has another version now. Reload the page; your edits are kept.",
};

const withCase = (view) => (view.case ? "" : "Fetch a sample first.");

function model({ model }) {
  if (!model) return "Choose a model.";
  if (model.error) return `The model cannot be used: ${model.error}`;
  return model.version ? "" : "There is no trained model yet. Segment and submit a few cases by hand, then press Train.";
}

function train({ model, training, completed }) {
  if (training.active) return "A training runs already.";
  if (!model) return "Choose a model.";
  return completed ? "" : "Submit at least one label first: there is nothing to learn from.";
}

function unsent({ drafts }) {
  if (!drafts.length) return "There is no unsent work.";
  return drafts.every(({ elsewhere }) => elsewhere) ? "It is open in another tab of this browser." : "";
}

const labelled = (view) => withCase(view) || (view.case.label ? "" : "This case has no submitted label yet.");

const CHECKS = {
  auto_segment: (view) => withCase(view) || model(view),
  submit: withCase,
  compare: withCase,
  restore_label: labelled,
  review: labelled,
  choose_channel: (view) => withCase(view) || (view.case.channels.length > 1 ? "" : "The images of this server have one channel."),
  cancel: ({ activity }) => (!activity ? "Nothing runs that could be cancelled." : activity.cancellable ? "" : "This cannot be cancelled; it ends soon."),
  discard_draft: unsent,
  restore_draft: unsent,
  train,
  train_anew: (view) => train(view) || (view.training.resumable ? "" : "There is no training to be resumed: press Train."),
  stop_training: ({ training }) => (training.active ? "" : "No training runs."),
  publish: ({ versions }) => (versions ? "" : "There is no version yet."),
  roll_back: ({ versions }) => (versions > 1 ? "" : "There is no earlier version."),
};

/**
 * What becomes of the edits, and what is asked before.
 * @returns {{edits: string, asked: string[]}} edits: "none" (there are none), "stay" (in hand), "kept" (as unsent work,
 * then the case goes), "kept, undo" (as unsent work and one Undo away), "sent" (with the label; the unsent work goes when
 * the server has confirmed it), "lost" (only after the answer to what is asked).
 */
export function fate(command, view) {
  const found = view.case, edited = Boolean(found?.edited);
  if (command === "discard_draft") return { edits: "lost", asked: ["discard_draft"] };
  if (command === "train_anew") return { edits: edited ? "stay" : "none", asked: ["train_anew"] };
  if (command === "submit" && found) {
    return { edits: edited ? "sent" : "none", asked: ["strangers", "empty", "meanwhile", "lent"].filter((doubt) => found[doubt]) };
  }
  const elsewhere = command === "open_case" && view.elsewhere ? ["other_tab"] : [];
  if (!edited) return { edits: "none", asked: elsewhere };
  if (LEAVING.has(command)) return found.keepable ? { edits: "kept", asked: elsewhere } : { edits: "lost", asked: [...elsewhere, "lose_edits"] };
  if (command === "auto_segment") return { edits: found.keepable ? "kept, undo" : "undo", asked: [] };
  return { edits: "stay", asked: [] };
}
