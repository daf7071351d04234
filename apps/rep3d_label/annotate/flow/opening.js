// Fetching a case: the next most useful one, a certain one, or unsent work on one. The case in hand stays until the new
// one is there, so a failed download leaves the user where he was.
import { Refused } from "../../api.js";
import { STAY } from "./foreground.js";
import { fate } from "./rules.js";
import { labelOf } from "./server.js";
import { namesOf, strangers } from "./strangers.js";
import { drawnOn, sameImage, Work } from "./work.js";

export class Opening {
  #context;

  constructor(context) {
    this.#context = context;
  }

  nextSample = () => this.#run("next_sample", "Asking for the next sample", async (signal) => {
    const { server, view } = this.#context;
    const sample = await server.next(view.now.strategy);
    if (sample) await this.#open("next_sample", sample.id, signal, { reason: sample.reason, until: sample.leased_until });
    else view.say("info", "No image is left to label: all are done.");
  });

  openCase = (id) => this.#run("open_case", `Opening ${id}`, (signal) => this.#open("open_case", id, signal));

  restoreDraft = (key) => this.#run("restore_draft", "Opening unsent work", async (signal) => {
    const { drafts } = this.#context;
    if ((await drafts.elsewhere()).has(key)) throw new Refused("This unsent work is open in another tab of this browser: go on there, or open another case there first.");
    const draft = await drafts.read(key);
    if (!draft) throw new Refused("This unsent work is not there any more: it was submitted or thrown away in another tab.");
    await this.#open("restore_draft", draft.image, signal, { draft });
  });

  /** Makes an earlier label of the case in hand the current one again, and opens it. */
  restoreLabel = (entry) => this.#run("restore_label", "Restoring an earlier label", async (signal) => {
    const { server, work: { id } } = this.#context;
    await server.restore(id, entry);
    await this.#open("restore_label", id, signal);
  });

  /** Shows another channel of the image under the label in hand. */
  chooseChannel = (channel) => this.#context.foreground.run("choose_channel", "Fetching the channel", async (signal) => {
    const { server, stage, view, work, keeping, foreground } = this.#context;
    const found = await server.image(work.id, channel, { signal, tell: foreground.telling("Downloading the image") });
    if (found.params.mark !== work.image.mark) throw new Refused("The image was changed or replaced while you worked on it. Open the case again; what you drew is kept as unsent work.");
    await keeping.keepAll(work).catch(() => {}); // it stays in hand all the same
    const edited = work.edited(stage), label = stage.label();
    work.image = drawnOn(found, channel);
    await this.#show(work, found, label);
    work.sent = edited ? -1 : stage.revision;
    work.kept = stage.revision;
    view.updateCase({ channel });
  });

  #run(command, text, work) {
    return this.#context.foreground.run(command, text, async (signal) => {
      await this.#leave(command);
      await work(signal);
    });
  }

  /** Keeps the edits, then lets go on; where they cannot be kept, the user decides. */
  async #leave(command) {
    const { keeping, foreground, view, stage, work } = this.#context;
    if (!work || work.givenUp === stage.revision) return;
    await keeping.keepAll(work).catch(() => {});
    for (const question of fate(command, view.now).asked) {
      if ((await foreground.asked(question, { id: work.id })) !== "go") throw STAY;
      work.givenUp = stage.revision;
    }
  }

  async #open(command, id, signal, { reason = "", until = null, draft = null } = {}) {
    const { server, foreground, obstacle, view, work: before } = this.#context;
    let reserved = until;
    try {
      await this.#elsewhere(command, id);
      reserved ??= (await server.reserve(id)).until;
      const known = await server.case(id);
      const why = known.image?.shape && obstacle(known.image.shape);
      if (why) throw new Refused(why);
      const channel = draft?.channel ?? 0;
      const found = await server.image(id, channel, { signal, tell: foreground.telling("Downloading the image") });
      const facts = labelOf(known);
      const label = draft ? await this.#unpacked(draft, found) : facts && (await server.label(id, null, { signal }));
      await this.#leave(command); // what was drawn while it was on its way
      await this.#take({ id, known, found, label, facts, reason, reserved, draft, channel });
    } catch (error) {
      const wanted = !reserved || id === before?.id || view.now.drafts.some(({ image }) => image === id);
      if (!wanted) server.release(id).catch(() => {}); // others may have it
      throw error;
    }
  }

  async #elsewhere(command, id) {
    const { tabs, place, view, work, foreground } = this.#context;
    const elsewhere = id !== work?.id && (await tabs.elsewhere(place(id)));
    for (const question of fate(command, { ...view.now, case: null, elsewhere }).asked) {
      if ((await foreground.asked(question, { id })) !== "go") throw STAY;
    }
  }

  #unpacked(draft, found) {
    if (sameImage(draft, found)) return this.#context.transfers.unkeep(draft.packed);
    throw new Refused(`${draft.image} is another image now than the one that this was drawn on: it was replaced. The unsent work stays in the list.`);
  }

  async #take({ id, known, found, label, facts, reason, reserved, draft, channel }) {
    const { stage, view, tabs, place, lease, keeping, drafts, server, work: before } = this.#context;
    const untouched = before && before.id !== id && before.untouched(stage) && !view.now.case.leaseLost;
    if (before) before.gone = true;
    this.#context.work = null; // what is drawn by opening is no edit of the user's
    const work = new Work(id, drawnOn(found, channel), view.now.model?.name ?? "", facts);
    if (draft) work.resume(draft);
    stage.close();
    view.update({ case: null });
    await this.#show(work, found, label);
    if (!draft) work.sent = work.kept = stage.revision;
    this.#context.work = work;
    tabs.hold(place(id));
    view.update({ case: {
      id, reason, channel, channels: found.params.channels ?? [],
      source: draft ? "unsent work" : label ? "submitted label" : "empty", edited: Boolean(draft), kept: "", keepable: true,
      label: Boolean(facts), author: known.author, time: known.time, review: known.review, role: known.role,
      reserved: "", leaseLost: "", proposal: false, strangers: false, empty: false, meanwhile: false, lent: false,
    } });
    lease.hold(id, reserved);
    if (draft) await this.#goOn(work, draft, facts);
    drafts.tell([]); // what was in hand may be gone on with elsewhere
    await keeping.list();
    if (untouched) server.release(before.id).catch(() => {});
    const unknown = label ? strangers(label, view.now.model?.labels ?? []) : [];
    if (unknown.length) {
      view.say("warning", `This label has voxels with ${namesOf(unknown)}, which no label of this model stands for. They are shown in grey and locked; before you submit, unlock them and paint over, or choose another model. On Submit you can clear them.`);
      return;
    }
    if (view.now.message) return;
    const unsent = view.now.drafts.filter(({ image }) => image === id).length;
    view.say("info", unsent ? "There is unsent work on this case: continue it from the list of unsent work." : label ? "" : `${id} is ready.`);
  }

  /** Goes on with unsent work: the old draft goes when the new one is there, or where the server has the label. */
  async #goOn(work, draft, facts) {
    const { stage, view, keeping, drafts } = this.#context;
    if (draft.submission && facts?.submission === draft.submission) {
      work.sent = work.kept = stage.revision;
      work.facts = facts;
      view.updateCase({ edited: false, source: "submitted label" });
      view.say("info", "The server has this work already: it was submitted.");
    } else {
      await keeping.keep(work).catch(() => {});
      if (!keeping.isKept(work)) return;
    }
    await drafts.remove(draft.key).catch(() => {});
  }

  #show(work, found, label) {
    const { stage, view } = this.#context;
    const { shape, affine, arrays } = found;
    return stage.open({ id: work.id, shape, affine, data: arrays.image }, label, view.now.model?.labels ?? []);
  }
}
