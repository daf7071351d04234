// What is done with a whole label, in a worker: the page stays alive, and nothing is painted meanwhile.

import { bounds, crop, extent, paste, widened } from "../paint/box.js";

const MARGIN = 0.5, MARGIN_MM = 15;  // around what was painted: half as much again, at least so many mm

export class Regions {
  /** stage: gives `map`, `grid`, `image`, `plane`, `settings`, `entries`, `say` and `edited`. */
  constructor(stage) {
    this.stage = stage;
    this.words = "";
    this.running = null;
    this.worker = null;
  }

  /** What is being done, in words, or "". */
  get busy() { return this.words; }

  get value() { return this.stage.settings.get("value"); }

  get name() { return this.stage.entries.find(({ value }) => value === this.value)?.name ?? `label ${this.value}`; }

  between() {
    const { axis } = this.stage.grid.slice(this.stage.plane, 0);
    return this.run(`Fill between slices: ${this.name}`, "fillBetween", { value: this.value, axis }, () => 1);
  }

  smooth() {
    const sigma = this.stage.settings.get("sigma");
    return this.run(`Smooth ${this.name}`, "smooth", { value: this.value, sigma }, () => 4 * sigma);
  }

  islands(largest) {
    const smallest = largest ? 0 : Math.max(1, Math.ceil(this.stage.settings.get("smallest") / this.stage.grid.millilitres));
    const words = largest ? `Largest part of ${this.name}` : `Without small parts: ${this.name}`;
    return this.run(words, "removeIslands", { value: this.value, smallest }, () => 0);
  }

  /** Seeds are all voxels with a label. */
  grow() { return this.run("Grow", "growCut", {}, (size) => Math.max(MARGIN_MM, MARGIN * Math.max(...size))); }

  /** Begins it; `running` resolves when it is done. */
  run(...what) {
    this.stage.rest();
    if (!this.words && this.stage.mayPaint()) this.running = this.work(...what);
    return this.running;
  }

  async work(words, work, options, margin) {
    const { stage } = this, { map, grid, image } = stage;
    const growing = work === "growCut";
    const wanted = new Uint8Array(256);
    if (growing) wanted.fill(1, 1);
    else wanted[this.value] = 1;
    const around = bounds(grid.shape, map.voxels, wanted);
    if (!around) {
      return stage.say(growing ? "Nothing is labelled yet: paint a little of each label first." : `Nothing is labelled ${this.name} yet.`);
    }
    const box = widened(around, grid.shape, grid.spacing, margin(extent(around).map((count, axis) => count * grid.spacing[axis])));
    const open = box.map((at, side) => at === (side < 3 ? 0 : grid.shape[side - 3] - 1));
    if (growing && open.every(Boolean) && map.counts.filter((count, value) => value && count).length < 2) {
      return stage.say("What was painted reaches all sides of the image, so nothing says where to stop: paint a second label there first.");
    }
    const { revision } = map;
    this.words = words;
    stage.say(`${words} ...`);
    try {
      const labels = await this.ask(work, {
        shape: extent(box), spacing: grid.spacing, labels: crop(grid.shape, map.voxels, box, Uint8Array),
        grey: growing ? crop(grid.shape, image.data, box, Float32Array) : null,
      }, { ...options, open });
      if (stage.map !== map) return;  // another case meanwhile
      if (map.revision !== revision) throw new Error("the label changed meanwhile");
      map.begin(words);
      paste(grid.shape, labels, box, (index, value) => { if (stage.known(value)) map.put(index, value); });
      const changed = map.end();
      stage.edited(changed);
      stage.say(changed ? `${words}: done.` : `${words}: nothing changed.`);
    } catch (error) {
      stage.say(`${words}: not done, ${error.message}.`);
    } finally {
      this.words = "";
    }
  }

  ask(work, box, options) {
    this.worker ??= new Worker(new URL("../paint/worker.js", import.meta.url), { type: "module" });
    return new Promise((done, fail) => {
      this.worker.onmessage = ({ data }) => (data.error ? fail(new Error(data.error)) : done(data.labels));
      this.worker.onerror = (event) => {
        this.worker = null;
        fail(new Error(event.message || "the browser could not begin it"));
      };
      this.worker.postMessage({ work, box, options }, [box.labels.buffer, ...(box.grey ? [box.grey.buffer] : [])]);
    });
  }
}
