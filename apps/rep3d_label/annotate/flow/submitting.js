// Submit: from what is drawn to a label on the server, without losing or changing a voxel in silence. Each submission has
// a name that the server keeps with the label, so one whose answer was lost is recognised and not sent again.
import { Refused, Unreachable } from "../../api.js";
import { mistake } from "./foreground.js";
import { fate } from "./rules.js";
import { namesOf, strangers } from "./strangers.js";
import { labelOf } from "./server.js";

const AGAIN = "Your work is kept here. Submit again: a label that the server has already is not stored twice.";
const NOT_CONFIRMED = `The server has not confirmed the label. ${AGAIN}`;

export class Submitting {
  #context;
  #onItsWay = false;

  constructor(context) {
    this.#context = context;
  }

  submit = () => this.#context.foreground.run("submit", "Checking the label", (signal) => this.#attempt(signal), (error) => this.#failed(error));

  /** Looks what is there, asks what is to be asked, and sends; once more where somebody submitted in between (`refused`:
   *  what was to be replaced then). */
  async #attempt(signal, refused = null) {
    const { server, view, work } = this.#context;
    this.#onItsWay = false;
    if (!(await this.#allStandForSomething(work))) return;
    const { label, submission, key } = await this.#snapshot(work);
    const present = labelOf(await server.case(work.id));
    if (present?.submission === submission.id) { // the answer was lost
      await this.#accepted(work, label, submission, key, {}, present);
      return;
    }
    const empty = label.every((value) => value === 0);
    const meanwhile = Boolean(present) && (present.time !== work.facts?.time || present.submission !== work.facts?.submission) && !work.tried.includes(present.submission);
    view.updateCase({ empty, meanwhile, lent: false });
    for (const doubt of fate("submit", view.now).asked) {
      if (!(await this.#answered(doubt, work, present, signal))) return;
    }
    const replaces = present ? { time: present.time, submission: present.submission } : {}, seen = JSON.stringify(replaces);
    try {
      await this.#send(work, label, submission, key, { replaces, ...(empty ? { empty } : {}) }, signal);
    } catch (error) {
      if (error.reason !== "label_replaced" || seen === refused) throw error;
      await this.#attempt(signal, seen);
    }
  }

  /** Values that no label of the model stands for cannot be submitted: the user may clear their voxels. */
  async #allStandForSomething(work) {
    const { stage, view, foreground } = this.#context;
    const label = stage.label(), found = strangers(label, view.now.model?.labels ?? []);
    view.updateCase({ strangers: found.length > 0 });
    if (!fate("submit", view.now).asked.includes("strangers")) return true;
    if ((await foreground.asked("strangers", { id: work.id, values: namesOf(found) })) !== "clear") {
      view.say("info", "Nothing was sent.");
      return false;
    }
    const unknown = new Set(found);
    stage.replace(label.map((value) => (unknown.has(value) ? 0 : value)), "Clear what no label stands for");
    view.updateCase({ strangers: false });
    return true;
  }

  /** The label as it is now, kept under the name of its submission. */
  async #snapshot(work) {
    const { stage, keeping } = this.#context;
    for (;;) {
      const submission = work.named(stage.revision), label = stage.label();
      await keeping.keep(work).catch(() => {}); // sending it is the better way to keep it
      if (submission.revision === stage.revision) return { label, submission, key: work.key };
    }
  }

  /** Asks one question; whether to go on. */
  async #answered(doubt, work, present, signal) {
    const { server, stage, view, foreground } = this.#context;
    const theirs = doubt === "meanwhile" ? await server.label(work.id, null, { signal }) : null;
    if (theirs) {
      const compared = `label of ${present.author ?? "somebody"}`;
      await stage.compare(compared, theirs);
      view.updateCase({ compared });
    }
    const answer = await foreground.asked(doubt, { id: work.id, present });
    if (answer === "submit") return true;
    if (answer === "theirs") await this.#takeTheirs(work, theirs, present);
    else view.say("info", theirs ? "Nothing was sent. The other label is shown as an outline over yours." : "Nothing was sent.");
    return false;
  }

  async #takeTheirs(work, theirs, present) {
    const { stage, view, keeping } = this.#context;
    await keeping.keepAll(work);
    work.seal(); // mine stays as unsent work
    await stage.compare("", null);
    stage.replace(theirs, "The other label");
    work.sent = work.kept = stage.revision;
    work.facts = present;
    view.updateCase({ edited: false, compared: "", source: `label of ${present.author ?? "somebody"}`, label: true, author: present.author, time: present.time,
      review: present.review, meanwhile: false });
    await keeping.list();
    view.say("info", "The other label is in hand. Yours is kept as unsent work, and one Undo away.");
  }

  async #send(work, label, submission, key, more, signal) {
    const { server, view, foreground } = this.#context;
    const params = {
      label_info: (view.now.model?.labels ?? []).map(({ name, value }) => ({ name, idx: value })), submission: submission.id,
      ...(work.version ? { model_version: work.version } : {}), ...more,
    };
    foreground.progress("Sending the label");
    this.#onItsWay = true;
    let answer;
    try {
      answer = await server.submit(work.id, work.image, label.slice(), params, signal);
    } catch (error) {
      const lent = error instanceof Refused && error.reason === "reserved" && !more.override_lease;
      if (!lent) throw error;
      this.#onItsWay = false;
      view.updateCase({ lent: true });
      if ((await foreground.asked("lent", { id: work.id, words: error.message })) !== "submit") {
        view.say("info", "Nothing was sent.");
        return;
      }
      await this.#send(work, label, submission, key, { ...more, override_lease: true }, signal);
      return;
    }
    await this.#accepted(work, label, submission, key, answer, await server.case(work.id).then(labelOf, () => null));
  }

  /** The server has the label of a draft. */
  async #accepted(work, label, submission, key, answer, facts) {
    const { stage, view, drafts, keeping, lease } = this.#context;
    work.everSent = true;
    work.facts = facts ?? work.facts;
    await drafts.remove(key).catch(() => {}); // where it comes again, it is told to be there already
    work.sent = submission.revision;
    if (work.key === key) work.seal();
    await this.#forget(work, label);
    await stage.compare("", null);
    const edited = work.edited(stage);
    view.updateCase({
      edited, kept: "", label: true, source: edited ? view.now.case.source : "submitted label", review: null, author: facts?.author ?? null,
      time: facts?.time ?? null, meanwhile: false, lent: false, compared: "",
    });
    lease.hold(work.id, ""); // the server has ended it
    if (edited) keeping.edited(work); // drawn while it was sent
    await keeping.list();
    view.say("info", `Submitted ${work.id}.${answer.duplicate ? " The server had exactly this label already." : ""}`);
  }

  /** Unsent work of this case with the very voxels that the server has now is none any more. */
  async #forget({ sealed }, label) {
    const { drafts, transfers } = this.#context;
    for (const key of sealed) {
      const same = await drafts.read(key).then((draft) => draft && transfers.unkeep(draft.packed)).then((kept) => kept?.every((value, at) => value === label[at]), () => false);
      if (same) await drafts.remove(key).catch(() => {});
    }
  }

  #failed(error) {
    const { view, foreground } = this.#context;
    const unknown = error instanceof Unreachable || error.name === "AbortError";
    if (this.#onItsWay && unknown) {
      view.say("warning", NOT_CONFIRMED);
      foreground.lookAgain();
    } else if (error.name === "AbortError") view.say("warning", "Cancelled. Nothing was sent.");
    else foreground.failure("Not submitted:", error, "Your work is kept here.");
    if (!unknown) mistake(error);
  }
}
