// The case in hand: why it came, what its label is, whether the edits are kept; channels, comparison, review; and unsent work.
import { facts, fill, h, plural, when } from "../../dom.js";
import { clock, commandButton } from "./parts.js";

const REASONS = { current: "present label", replaced: "replaced", removed: "removed", original: "as it was sent", unknown: "its record is damaged" };
const FIXED = new Set(["original", "unknown"]);
const said = ({ reason, author, time, replaced }) =>
  [REASONS[reason] ?? reason, author, time ? when(time) : replaced && `until ${when(replaced)}`].filter(Boolean).join(", ");

export class CasePanel {
  #host;
  #actions;
  #history = { of: null, entries: [] };
  #comparing = null; // the case of which the earlier labels are shown
  #redraw;

  /** @param actions chooseChannel, compare, review, history, restoreLabel, restoreDraft, discardDraft, nextSample. */
  constructor(host, actions, redraw) {
    this.#host = host;
    this.#actions = actions;
    this.#redraw = redraw;
    host.replaceChildren(h("div", { id: "unsent" }), h("div", { id: "in-hand" }), h("div", { id: "lease", role: "status" }), h("div", { id: "kept", class: "hint", role: "status" }));
  }

  show(view) {
    const [unsent, inHand, lease, kept] = this.#host.children, found = view.case;
    fill(unsent, view.drafts, () => view.drafts.length > 0 && this.#unsent(view.drafts));
    const { id, reason, source, label, author, time, review, role, channel, channels, proposal } = found ?? {};
    if (!found || this.#history.of !== `${found.id} ${found.time}`) this.#history = { of: null, entries: [] };
    // Not what changes while someone types a remark.
    const shown = found ? [id, reason, source, label, author, time, review, role, channel, channels, proposal, this.#history.of] : [view.total, view.completed];
    fill(inHand, shown, () => (found ? this.#inHand(found) : this.#nothing(view)));
    fill(lease, [found?.leaseLost, found?.reserved], () => (found?.leaseLost ? h("p", { class: "message error", role: "alert" }, found.leaseLost)
      : found?.reserved && h("p", { class: "hint" }, `Reserved for you until ${clock(found.reserved)}.`)));
    kept.textContent = !found ? "" : keepingWords(found);
    kept.className = found?.edited && !found.keepable ? "hint bad" : "hint";
  }

  #nothing({ total, completed }) {
    return [h("h2", {}, "No case in hand"), h("p", { class: "hint" }, total
      ? `${plural(total, "image")}, ${completed} with a label. Next sample fetches the one that would teach the model most.`
      : "No images yet. Put NIfTI files into the server's studies folder: they appear by themselves.")];
  }

  #inHand(found) {
    const { channels, reason } = found;
    return [
      h("h2", { class: "name" }, found.id),
      reason && h("p", { class: "reason" }, reason),
      facts(["Segmentation", found.source], found.label && ["Label", [`by ${found.author || "unknown"}`, found.time && when(found.time)].filter(Boolean).join(", ")],
        found.role && ["Used to", found.role === "validation" ? "measure" : "train"]),
      channels.length > 1 && h("label", { class: "field" }, "Channel ", h("select", { id: "channel", onchange: (event) => this.#actions.chooseChannel(event.target.selectedIndex) },
        channels.map((name, place) => h("option", { selected: place === found.channel }, name)))),
      (found.label || found.proposal) && this.#comparison(found),
      found.label && this.#review(found),
    ];
  }

  /** Other labels of the case: shown as an outline, or made the current one again. */
  #comparison(found) {
    const entries = this.#history.entries;
    const choices = [["", "nothing"], ...(found.proposal ? [["proposal", "the model's proposal"]] : []),
      ...entries.map((known) => [known.entry ?? "current", said(known)])];
    if (found.compared && !choices.some(([, words]) => words === found.compared)) choices.push(["", found.compared]); // the one that came meanwhile
    const chosen = (event) => {
      const { value, selectedIndex } = event.target;
      this.#actions.compare(value || null, choices[selectedIndex][1]);
    };
    return h("details", { class: "earlier", open: this.#comparing === found.id, ontoggle: ({ target }) => {
      this.#comparing = target.open ? found.id : null;
      if (target.open) this.#read(found);
    } },
      h("summary", {}, "Compare, earlier labels"),
      h("label", { class: "field" }, "Outline of ", h("select", { id: "compare", "data-command": "compare", onchange: chosen }, choices.map(([value, words]) => h("option", { value, selected: words === (found.compared || "nothing") }, words)))),
      found.label && h("ul", { class: "history" }, entries.map((known) => h("li", {}, h("span", {}, said(known)),
        known.entry && !FIXED.has(known.reason) && commandButton("restore_label", "Restore", () => this.#actions.restoreLabel(known.entry), { class: "quiet" })))));
  }

  async #read(found) {
    const of = `${found.id} ${found.time}`;
    if (this.#history.of === of) return;
    this.#history = { of, entries: found.label ? await this.#actions.history().catch(() => []) : [] };
    this.#redraw();
  }

  #review({ review }) {
    if (review) {
      return h("div", { class: "review" }, h("p", { class: "hint" }, `Reviewed by ${review.user || "somebody"}, ${when(review.time)}${review.remark ? `: ${review.remark}` : ""}`),
        commandButton("review", "Take the review back", () => this.#actions.review(""), { class: "quiet" }));
    }
    const remark = h("input", { "aria-label": "Remark", placeholder: "Remark, if any", maxlength: 500 });
    return h("div", { class: "review" }, remark, commandButton("review", "Reviewed", () => this.#actions.review(remark.value.trim()), { class: "quiet" }));
  }

  #unsent(drafts) {
    return [h("h2", {}, "Unsent work"), h("ul", { class: "drafts" }, drafts.map((draft) => h("li", { "data-draft": draft.image },
      h("span", {}, h("b", {}, draft.image), ` ${when(draft.time)}`),
      draft.elsewhere ? h("span", { class: "muted" }, "open in another tab") : h("span", { class: "buttons" }, commandButton("restore_draft", "Continue", () => this.#actions.restoreDraft(draft.key), { class: "quiet" }),
        commandButton("discard_draft", "Throw away", () => this.#actions.discardDraft(draft), { class: "quiet danger" })))))];
  }
}

function keepingWords({ edited, kept, keepable }) {
  if (!edited) return "";
  if (!keepable) return "Edits are only in this window: submit soon.";
  return kept ? `Edits kept in this browser at ${new Date(kept).toLocaleTimeString("en-GB")}, not submitted yet.` : "Edits not kept yet.";
}
