// Edits are kept within two seconds after the hand rests, and before anything begins that could lose them.

const IDLE_MS = 700, LONGEST_MS = 2_000, AGAIN_MS = 10_000;

export class Keeping {
  #context;
  #timer = 0;
  #first = 0; // when the first stroke was drawn that is not kept
  #queue = Promise.resolve();

  /** @param context stage, drafts, transfers, view. */
  constructor(context) {
    this.#context = context;
  }

  /** Notes that the user has drawn. */
  edited(work) {
    const now = performance.now();
    if (!this.#timer) this.#first = now;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.keep(work).catch(() => {}), Math.min(IDLE_MS, Math.max(0, this.#first + LONGEST_MS - now)));
  }

  /** Keeps a case as it is now; throws NotKept, and says so, where that cannot be. One at a time. */
  keep(work) {
    clearTimeout(this.#timer);
    this.#timer = 0;
    const kept = this.#queue.then(() => this.#write(work));
    this.#queue = kept.catch(() => {});
    return kept;
  }

  /** Notes that all is undone: there is no unsent work any more. */
  nothing(work) {
    const { key } = work;
    this.#queue = this.keep(work).then(async () => {
      if (work.key !== key || work.edited(this.#context.stage)) return; // drawn again meanwhile
      work.kept = -1;
      await this.#context.drafts.remove(key);
    }).catch(() => {}); // it is offered as unsent work, which loses nothing
  }

  /** Keeps anew what another tab has removed, while it is in hand here. */
  async again(work) {
    this.#queue = this.#queue.then(() => { work.kept = -1; }); // not while it is being kept
    await this.keep(work);
    this.#context.drafts.tell([]);
  }

  isKept(work) {
    const { stage } = this.#context;
    return !work.edited(stage) || work.kept === stage.revision;
  }

  /** Keeps until there is nothing newer: the user may draw on meanwhile. */
  async keepAll(work) {
    const { stage } = this.#context;
    for (stage.rest(); !this.isKept(work); stage.rest()) await this.keep(work);
  }

  async #write(work) {
    const { stage, drafts, transfers, view } = this.#context;
    if (work.gone || this.isKept(work)) return;
    const { revision } = stage, draft = work.draft(revision), time = new Date().toISOString();
    try {
      await drafts.save({ ...draft, time, packed: await transfers.keep(stage.label()) });
    } catch (error) {
      if (view.now.case?.keepable) view.say("error", error.message); // once
      view.updateCase({ keepable: false });
      if (!this.#timer) this.#timer = setTimeout(() => this.keep(work).catch(() => {}), AGAIN_MS); // there may be room again
      throw error;
    }
    work.kept = revision;
    if (view.now.case && !view.now.case.keepable) view.say("info", "Edits are kept in this browser again.");
    view.updateCase({ kept: time, keepable: true });
  }

  /** Shows the unsent work that is not in hand. */
  async list() {
    const { drafts, view } = this.#context;
    try {
      const found = await drafts.list(), elsewhere = found.length ? await drafts.elsewhere() : new Set();
      view.update({ drafts: found.filter(({ key }) => key !== this.#context.work?.key).map((draft) => ({ ...draft, elsewhere: elsewhere.has(draft.key) })) });
    } catch (error) {
      view.say("warning", error.message);
    }
  }
}
