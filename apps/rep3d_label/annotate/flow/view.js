// What is shown, as plain values; whoever draws reads them, and is called after each change.

export const NOTHING = {
  connection: "connecting", // or "ready", "lost", "signed_out", "other_version"
  server: null, // version, folder, id, device_name ... as /rep3d/status has it
  user: null, // whose key it is, null where no key is asked for
  role: "user",
  model: null, // {name, version, error, labels: [{name, value, color}]}
  models: [],
  strategies: [],
  strategy: "",
  activity: null, // {name, text, progress: 0..1 or null, cancellable}
  message: null, // {level: "info" | "warning" | "error", text, away: whether it goes when the server is back}
  case: null, // see workflow.js
  elsewhere: false, // whether another tab has the case that is to be opened
  drafts: [],
  completed: 0,
  total: 0,
  training: { active: false, resumable: false, stats: {} },
  versions: 0,
  problems: [], // what is wrong, each in words, as long as it is
};

export class View extends EventTarget {
  now = { ...NOTHING };

  update(changes) {
    Object.assign(this.now, changes);
    this.dispatchEvent(new Event("change"));
  }

  /** Changes what is said of the case in hand. */
  updateCase(changes) {
    if (this.now.case) this.update({ case: { ...this.now.case, ...changes } });
  }

  say(level, text, away = false) {
    this.update({ message: text ? { level, text, away } : null });
  }
}
