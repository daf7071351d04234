// Auto-segment, which never destroys edits: what was drawn is kept as unsent work, and one Undo away. So nothing is asked.
import { fresh } from "./server.js";

export class Segmenting {
  #context;

  constructor(context) {
    this.#context = context;
  }

  autoSegment = (uncertainty) => this.#context.foreground.run("auto_segment", "Asking for a segmentation", async (signal) => {
    const { server, work, view: { now: { model } } } = this.#context, request = fresh();
    signal.addEventListener("abort", () => { server.cancel(request).catch(() => {}); }); // it may have ended
    const found = await this.#watched(request, (tell) =>
      server.segment(work.id, model.name, { request_id: request, uncertainty, views: 1 }, { signal, tell }));
    if (this.#context.work === work) await this.#take(work, found);
  });

  /** Says while the server works whether it waits for its turn, and for how long already. */
  async #watched(request, segment) {
    const { server, foreground } = this.#context;
    const begun = performance.now(), telling = foreground.telling("Downloading the segmentation");
    let ended = false;
    const timer = setInterval(async () => {
      const mine = (await server.requests().catch(() => [])).find(({ id }) => id === request);
      const seconds = Math.round((performance.now() - begun) / 1000);
      if (mine && !ended) foreground.progress(mine.state === "waiting" ? `Waiting for its turn, ${seconds} s` : `The model segments, ${seconds} s`);
    }, 1000);
    const end = () => {
      ended = true;
      clearInterval(timer);
    };
    try {
      return await segment((done, total) => {
        end();
        telling(done, total);
      });
    } finally {
      end();
    }
  }

  async #take(work, { arrays, params }) {
    const { stage, view, keeping, foreground } = this.#context;
    foreground.progress("Taking the segmentation over", null, false);
    await keeping.keepAll(work).catch(() => {}); // Undo has it all the same, and it was said
    if (work.edited(stage)) work.seal();
    stage.replace(arrays.label, "Auto-segment");
    work.sent = work.kept = stage.revision;
    work.version = params.version ?? "";
    work.proposal = arrays.label;
    await stage.showUncertainty(arrays.uncertainty ?? null);
    view.updateCase({ edited: false, kept: "", source: `model ${work.version}`, proposal: true });
    await keeping.list();
    view.say(params.fallback ? "warning" : "info", headline(params));
  }
}

function headline({ version, device, latencies, missing_labels: missing, fallback, attribution }) {
  const took = latencies?.total ? ` in ${latencies.total.toFixed(1)} s on ${device}` : "";
  const parts = [`Segmented by ${version || "the model"}${took}. Check and correct it, then submit.`];
  if (missing?.length) parts.push(`The model does not know: ${missing.join(", ")}.`);
  return [...parts, fallback, attribution].filter(Boolean).join(" ");
}
