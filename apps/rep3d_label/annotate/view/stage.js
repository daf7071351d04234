// The stage: shows one image, holds its label, and lets people edit it. What the rest of the page knows of the viewer.

import { Grid } from "../paint/grid.js";
import { LabelMap } from "../paint/labelmap.js";
import { Settings } from "../tools/settings.js";
import { percentile, sample, scaleOf, windows } from "./grey.js";
import { Hand } from "./hand.js";
import { Screen } from "./screen.js";
import { obstacle } from "./slices.js";

/**
 * Events: "edit" (the label changed; detail.revision), "command" (detail.name: a key that is the flow's).
 *
 * Images are {id, shape: [I, J, K], data: typed array, affine: 4 rows from own indices to RAS in mm, modality}; label maps are
 * Uint8Array. Both are in the image's own order, first index fastest, on the way in and on the way out.
 */
export class Stage extends EventTarget {
  /** The elements into which the views, the tools and the table of labels are built. */
  constructor({ stage, tools, labels }) {
    super();
    this.settings = new Settings();
    this.screen = new Screen(stage);
    this.hand = new Hand(this);
    this.map = null;
    this.edits = 0;
    this.entries = [];
    this.shown = new Set();
    this.settings.addEventListener("change", ({ detail }) => this.apply(detail));
    this.started = null;
  }

  static obstacle(shape = null) { return obstacle(shape); }

  async open(image, label, entries) {
    this.close();
    await (this.started ??= this.screen.start());
    const grid = new Grid(image.shape, image.affine);
    const sorted = sample(image.data);
    const map = new LabelMap(image.shape, label && new Uint8Array(label));
    this.windows = windows(sorted, image.modality);
    await this.screen.open(grid, { data: image.data, scale: scaleOf(sorted) }, map.voxels);
    Object.assign(this, { image, grid, map });
    this.settings.set("window", Object.values(this.windows)[0]);
    this.settings.set("limits", [percentile(sorted, 0.5), percentile(sorted, 1)]);
    this.setEntries(entries);
    await this.settled();
  }

  close() {
    this.image = this.grid = this.map = null;
    if (this.screen.grid) this.screen.close();
  }

  get isOpen() { return this.map !== null; }

  get revision() { return this.edits; }

  label() { return this.map.voxels.slice(); }

  replace(label, words) {
    if (!(label instanceof Uint8Array)) throw new RangeError("The label has values above 255; this page takes up to 255 labels");
    this.edited(this.map.replace(label, words));
  }

  setEntries(entries) {
    this.entries = entries;
    if (!entries.some(({ value }) => value === this.settings.get("value"))) this.settings.set("value", entries[0]?.value ?? 1);
    this.colour();
  }

  undo() { this.edited(this.map.undo() !== ""); }

  redo() { this.edited(this.map.redo() !== ""); }

  async settled() { await this.screen.settled(); }

  // For the parts -------------------------------------------------------------------------------------------------------

  mayPaint() { return this.isOpen; }

  /** Says that a step was made, or taken back. */
  edited(changed) {
    if (!changed) return;
    this.edits++;
    this.screen.changed(this.map.voxels, this.map.takeDirty());
    this.dispatchEvent(new CustomEvent("edit", { detail: { revision: this.edits } }));
  }

  colour() {
    const rgba = new Uint8Array(1024);
    for (const { value, color } of this.entries) rgba.set([...color, Math.round(255 * this.settings.get("opacity"))], 4 * value);
    this.screen.slices.texture("colours", rgba);
    this.screen.draw();
  }

  apply(name) {
    if (!this.isOpen && name !== "layout") return;
    const value = this.settings.get(name), { screen } = this;
    if (name === "window") Object.assign(screen.slices.look, { low: value[0], width: value[1] });
    if (name === "window") screen.draw(...(screen.only ? [screen.only] : []));
    if (name === "opacity") this.colour();
    if (name === "layout" || name === "solid") screen.setLayout(this.settings.get("layout"), this.settings.get("solid"));
  }
}
