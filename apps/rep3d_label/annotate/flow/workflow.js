// The work on a case: fetch, segment, correct, submit. The rule that all others follow: nothing that could lose an edit
// begins before the edit is kept. What may be done when, and what is asked, is in rules.js.
import { Foreground } from "./foreground.js";
import { Keeping } from "./keeping.js";
import { Opening } from "./opening.js";
import { Segmenting } from "./segmenting.js";
import { Submitting } from "./submitting.js";

export class Workflow {
  #context;
  #away = false; // the page is left

  /** @param parts server, stage, view, lease, tabs, drafts, transfers, obstacle(shape), place(image), ask(question, about),
   *  lookAgain() asks the server how things are. */
  constructor(parts) {
    const context = this.#context = { ...parts, work: null };
    context.foreground = new Foreground(parts.view, parts.ask, parts.lookAgain);
    context.keeping = new Keeping(context);
    const opening = new Opening(context), { autoSegment } = new Segmenting(context), { submit } = new Submitting(context);
    const { nextSample, openCase, restoreDraft, restoreLabel, chooseChannel } = opening;
    Object.assign(this, { nextSample, openCase, restoreDraft, restoreLabel, chooseChannel, autoSegment, submit });
    parts.stage.addEventListener("edit", () => this.#edited());
    parts.drafts.inHand = () => (this.#away ? null : context.work?.key);
    parts.drafts.listen((gone) => this.#removed(gone));
    context.keeping.list();
  }

  cancel = () => this.#context.foreground.cancel();

  refused = (command) => this.#context.foreground.refused(command);

  discardDraft = async (draft) => {
    const { foreground, drafts, keeping, view, ask } = this.#context;
    if (foreground.refused("discard_draft") || (await ask("discard_draft", draft)) !== "discard") return;
    if ((await drafts.elsewhere()).has(draft.key)) view.say("warning", "It was not thrown away: it is open in another tab of this browser.");
    else await drafts.remove(draft.key).catch((error) => view.say("error", error.message));
    await keeping.list();
  };

  /** Shows another label of the case as an outline: the model's "proposal", the "current" one of the server, an entry of its
   *  history, or null for none. */
  compare = (which, words) => this.#beside("compare", async (work) => {
    const { server, stage, view } = this.#context;
    const label = which === "proposal" ? work.proposal : which && (await server.label(work.id, which === "current" ? null : which));
    if (this.#context.work !== work) return;
    await stage.compare(words ?? "", label || null);
    view.updateCase({ compared: label ? words : "" });
  });

  /** Records that the label was reviewed, with a remark or without; takes it back where it was. */
  review = (remark) => this.#beside("review", async (work) => {
    const { server, view } = this.#context;
    const found = view.now.case.review ? await server.takeReviewBack(work.id) : await server.review(work.id, remark);
    if (this.#context.work === work) view.updateCase({ review: found.review });
  });

  /** The labels of the case in hand, the current one first. */
  history = () => this.#context.server.history(this.#context.work.id);

  /** Keeps what can be kept now: the page is hidden, or about to go. */
  hidden() {
    const { keeping, work } = this.#context;
    if (work) keeping.keep(work).catch(() => {});
  }

  /** The page is there again, or looked at again: another tab may have logged in, or have another case in hand. */
  shown() {
    this.#away = false;
    this.#context.lookAgain();
    this.#context.keeping.list();
  }

  /** Gives an untouched case back: the page goes. */
  gone() {
    const { server, stage, view, drafts, work } = this.#context;
    this.#away = true;
    drafts.tell([]);
    if (work?.untouched(stage) && !view.now.case.leaseLost) server.releaseAtLast(work.id);
  }

  /** Whether going now would lose something. */
  get unkept() {
    const { keeping, work } = this.#context;
    return Boolean(work) && !keeping.isKept(work);
  }

  async #beside(command, act) {
    const { foreground, work } = this.#context;
    if (foreground.refused(command)) return;
    try {
      await act(work);
    } catch (error) {
      foreground.failed(error);
    }
  }

  /** Another tab has thrown unsent work away, or gone on with it: what is in hand here stays kept. */
  async #removed(gone) {
    const { work, stage, view, keeping } = this.#context;
    if (work && gone.includes(work.key) && work.edited(stage)) {
      await keeping.again(work).catch(() => {}); // it says so
      if (keeping.isKept(work)) view.say("warning", "Another tab went on with this unsent work, or threw it away. It is in hand here, so it was kept anew.");
    }
    await keeping.list();
  }

  #edited() {
    const { work, stage, view, lease, keeping } = this.#context;
    if (!work) return;
    lease.working();
    const edited = work.edited(stage);
    view.updateCase({ edited, ...(edited ? {} : { kept: "" }) });
    if (edited) keeping.edited(work);
    else keeping.nothing(work);
  }
}
