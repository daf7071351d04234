// The stage: shows one image, holds its label, and lets people edit it. What the rest of the page knows of the viewer.

import { h } from "../../dom.js";
import { places } from "../paint/doubt.js";
import { Grid } from "../paint/grid.js";
import { LabelMap } from "../paint/labelmap.js";
import { commandsOf } from "../tools/commands.js";
import { buildLabels } from "../tools/labels.js";
import { Regions } from "../tools/regions.js";
import { Settings } from "../tools/settings.js";
import { listen } from "../tools/shortcuts.js";
import { buildStrip } from "../tools/strip.js";
import { buildToolbar } from "../tools/toolbar.js";
import { percentile, sample, scaleOf, windows } from "./grey.js";
import { Hand } from "./hand.js";
import { Screen } from "./screen.js";
import { breath, obstacle } from "./slices.js";
import { Solid } from "./solid.js";

const SLOW = 500;  // ms for a picture
const NEUTRAL = [165, 165, 165];  // the colour of values that are not in the table of labels

/**
 * Events: "edit" (the label changed; detail.revision), "command" (detail.name: a key that is the flow's).
 *
 * Images are {id, shape: [I, J, K], data: typed array, affine: 4 rows from own indices to RAS in mm, modality}; label maps are
 * Uint8Array. Both are in the image's own order, first index fastest, on the way in and on the way out.
 */
export class Stage extends EventTarget {
  /** The elements into which the views, the tools, the table of labels and the strip of a phone (if any) are built. */
  constructor({ stage, tools, labels, strip = null }) {
    super();
    this.map = this.image = this.grid = null;
    this.entries = [];
    this.hidden = new Set();
    this.locked = new Set();
    this.freed = new Set();  // values beyond the table that may be painted over
    this.doubts = { found: [], at: -1 };
    this.compared = "";
    this.hasDoubt = false;
    this.plane = "axial";  // the view last used
    this.settings = new Settings();
    this.screen = new Screen(stage);
    this.note = h("p", { class: "note", role: "status", hidden: true });
    this.screen.element.append(this.note);
    this.solid = new Solid(this.screen);
    this.hand = new Hand(this);
    this.regions = new Regions(this);
    this.commands = commandsOf(this);
    this.table = buildLabels(labels, this);
    this.toolbar = buildToolbar(tools, this, this.commands);
    this.strip = strip && buildStrip(strip, this);
    this.settings.addEventListener("change", ({ detail }) => this.apply(detail));
    this.screen.addEventListener("pace", ({ detail }) => this.pace(detail.ms));
    this.screen.addEventListener("lost", () => this.lost());
    this.screen.addEventListener("back", () => this.redraw());
    this.screen.addEventListener("placed", () => this.solid.place());
    listen((name, whose) => this.command(name, whose), (digit) => this.choose(digit));
  }

  // The contract with the flow ------------------------------------------------------------------------------------------

  /** "" or, in words, why this browser cannot show an image (of a shape). */
  static obstacle(shape = null) { return obstacle(shape); }

  /**
   * Shows an image with its label (null: none yet). entries: [{value, name, color: [r, g, b]}], the labels that can be painted.
   * Throws an Error, in words, where the browser or the card has too little memory; nothing is in hand then.
   */
  open(image, label, entries) {
    // One after the other: whoever opens the next case while one still loads gets the next.
    this.opening = (this.opening ?? Promise.resolve()).catch(() => null).then(() => this.load(image, label, entries));
    return this.opening;
  }

  async load(image, label, entries) {
    this.close();
    try {
      const grid = new Grid(image.shape, image.affine);
      const map = new LabelMap(image.shape);
      const sorted = sample(image.data);
      if (label) await map.copy(label, breath);
      await (this.started ??= this.screen.start());
      if (this.screen.lost) await this.screen.renew();
      this.note.hidden = true;
      await this.screen.open(grid, { data: image.data, scale: scaleOf(sorted) }, map.voxels);
      Object.assign(this, { image, grid, map, windows: windows(sorted, image.modality) });
      this.settings.set("limits", [percentile(sorted, 0.5), percentile(sorted, 1)]);
      this.settings.set("limited", false);
    } catch (error) {
      this.close();
      if (!(error instanceof RangeError && /alloc|memory|array length/i.test(error.message))) throw error;
      const words = `There is not enough memory for an image of ${image.shape.join(" x ")} voxels. Close other tabs, or open it in 3D Slicer.`;
      throw new Error(words, { cause: error });
    }
    this.chooseWindow(Object.keys(this.windows)[0]);
    this.setEntries(entries);
    for (const name of ["smooth", "outline", "solid"]) this.apply(name);
    await this.settled();
  }

  /** Nothing in hand; the image's memory is given back. */
  close() {
    this.rest();
    this.image = this.grid = this.map = null;
    this.hidden.clear();
    this.freed.clear();
    this.say("");
    this.doubts = { found: [], at: -1 };
    this.compared = "";
    this.hasDoubt = false;
    this.solid.close();
    this.screen.close();
    this.refresh();
  }

  get isOpen() { return this.map !== null; }

  /** A number of what the label is now, another one after every change; by Undo it is the one of before again. */
  get revision() { return this.map?.state ?? 0; }

  /** A copy of the label in hand. */
  label() { return this.map.voxels.slice(); }

  /** Another label instead, as one step that can be undone; words say what it was, such as "Auto-segment". */
  replace(label, words) {
    this.rest();
    this.edited(this.map.replace(label, words));
  }

  /** The labels that can be painted; voxels stay as they are. */
  setEntries(entries) {
    const beyond = entries.find(({ value }) => value > 255);
    if (beyond) throw new RangeError(`Label ${beyond.name} has the value ${beyond.value}; this page takes labels from 1 to 255`);
    this.entries = entries;
    if (!entries.some(({ value }) => value === this.settings.get("value"))) this.settings.set("value", entries[0]?.value ?? 1);
    this.guard();
    this.colour();
    this.refresh();
  }

  /** Entries of the values in hand that are not in the table: they are drawn in grey, and nothing paints over them until they are unlocked. */
  get beyond() {
    const found = this.isOpen ? [...this.map.counts.keys()].filter((value) => this.map.counts[value] && !this.known(value)) : [];
    return found.map((value) => ({ value, name: `${value} (not in the table)`, color: NEUTRAL }));
  }

  known(value) { return value === 0 || this.entries.some((entry) => entry.value === value); }

  /** Shows another label map as an outline, or (null) no longer. */
  async compare(name, label) {
    this.compared = label ? name : "";
    await this.screen.slices.overlay("other", label);
    this.apply("comparing");
    this.refresh();
  }

  /** Shows how unsure the model is, 0 to 1 for each voxel, or (null) no longer. */
  async showUncertainty(map) {
    const { grid } = this;
    this.doubts = { found: map ? await places(grid.shape, grid.spacing, map, breath) : [], at: -1 };
    if (this.grid !== grid) return;
    this.hasDoubt = Boolean(map);
    await this.screen.slices.overlay("doubt", map, 255);
    this.apply("doubting");
    this.refresh();
  }

  /** Resolves when all that is due is done and drawn. */
  async settled() {
    await this.regions.running;
    await this.screen.settle();
  }

  /** Ends a stroke that is being drawn: it is an edit as far as it goes. */
  rest() { this.hand.rest(); }

  // For the parts -------------------------------------------------------------------------------------------------------

  mayPaint() {
    if (!this.isOpen || this.regions.busy || this.screen.lost) return false;
    if (this.entries.length && this.hidden.has(this.settings.get("value"))) this.hide(this.settings.get("value"));
    return true;
  }

  /** Says that a step was made, or taken back. */
  edited(changed) {
    if (!changed) return;
    this.say("");
    this.screen.changed(this.map.voxels, this.map.takeDirty());
    this.solid.changed(this.map.voxels);
    this.refresh();
    this.dispatchEvent(new CustomEvent("edit", { detail: { revision: this.revision } }));
  }

  undo() { this.replay("undo", "Taken back"); }

  redo() { this.replay("redo", "Done again"); }

  replay(way, said) {
    if (!this.isOpen || this.regions.busy || this.hand.busy) return;
    const words = this.map[way]();
    this.edited(words !== "");
    if (words) this.say(`${said}: ${words}.`);
  }

  say(words) { this.toolbar.say(words); }

  /** Says so when pictures begin to take long, and no longer when they are quick again. */
  pace(ms) {
    const slow = ms > SLOW;
    if (slow === this.screen.slow) return;
    this.screen.slow = slow;
    this.say(!slow ? "" : `A picture takes ${(ms / 1000).toFixed(1)} s on this computer. ` + (this.screen.slices.inSoftware
      ? "The browser draws without a graphics card: switch hardware acceleration on in its settings, or make the window smaller."
      : "One large view, or a smaller window, is faster."));
  }

  /** The card draws no more: nothing is painted that cannot be seen. */
  lost() {
    this.rest();
    this.note.hidden = false;
    this.note.replaceChildren("The graphics card stopped drawing. Your edits are safe: they are not on the card. It goes on by itself when the card is back. ",
      h("button", { type: "button", class: "quiet", onclick: () => this.redraw() }, "Draw again"));
  }

  /** Sends the card all anew, after what is being opened. */
  redraw() {
    this.opening = (this.opening ?? Promise.resolve()).catch(() => null).then(async () => {
      if (!this.screen.lost) return;
      const { image, map } = this;
      try {
        await this.screen.renew(image && { data: image.data, scale: scaleOf(sample(image.data)) }, map?.voxels);
      } catch (error) {
        this.note.firstChild.data = `The graphics card still does not draw (${error.message}). Your edits are safe. `;
        return;
      }
      this.note.hidden = true;
      this.colour();
      this.solid.close();
      for (const name of ["smooth", "solid"]) this.apply(name);
    });
    return this.opening;
  }

  command(name, whose) {
    if (whose === "flow") this.dispatchEvent(new CustomEvent("command", { detail: { name } }));
    else this.commands[name]();
    return true;
  }

  choose(digit) {
    const entry = this.entries[digit - 1];
    if (entry) this.settings.set("value", entry.value);
    return Boolean(entry);
  }

  // Labels that are shown and locked -------------------------------------------------------------------------------------

  hide(value) {
    if (!this.hidden.delete(value)) this.hidden.add(value);
    this.colour();
    this.table.rebuild();
  }

  hideAll() {
    if (this.hidden.size) this.hidden.clear();
    else for (const { value } of [...this.entries, ...this.beyond]) this.hidden.add(value);
    this.colour();
    this.table.rebuild();
  }

  lock(value) {
    const chosen = this.known(value) ? this.locked : this.freed;
    if (!chosen.delete(value)) chosen.add(value);
    this.guard();
    this.table.rebuild();
  }

  isLocked(value) { return this.known(value) ? this.locked.has(value) : !this.freed.has(value); }

  lockOthers() {
    const others = this.entries.map(({ value }) => value).filter((value) => value !== this.settings.get("value"));
    const all = others.every((value) => this.locked.has(value));
    this.locked = new Set(all ? [] : others);
    this.guard();
    this.table.rebuild();
  }

  /** Tells the label map what may not be painted. */
  guard() {
    if (!this.isOpen) return;
    for (let value = 0; value < 256; value++) this.map.locked[value] = this.isLocked(value) ? 1 : 0;
    const [low, high] = this.settings.get("limits");
    this.map.limits = this.settings.get("limited") ? { image: this.image.data, low, high } : null;
  }

  colour() {
    const rgba = new Uint8Array(1024), opacity = Math.round(255 * this.settings.get("opacity"));
    const colors = new Map(this.entries.map(({ value, color }) => [value, color]));
    for (let value = 1; value < 256; value++) rgba.set([...colors.get(value) ?? NEUTRAL, this.hidden.has(value) ? 0 : opacity], 4 * value);
    this.screen.slices.colours(rgba);
    this.solid.colour(rgba);
    if (this.isOpen) this.screen.draw();
  }

  // Windows and places ---------------------------------------------------------------------------------------------------

  chooseWindow(name) {
    if (!this.windows?.[name]) return;
    this.settings.set("window", this.windows[name]);
    this.windowName = name;
    this.toolbar.refresh();
  }

  nextWindow() {
    const names = Object.keys(this.windows);
    this.chooseWindow(names[(names.indexOf(this.windowName) + 1) % names.length]);
  }

  nextDoubt(step) {
    const { found } = this.doubts;
    if (!found.length) return this.say(this.hasDoubt ? "The model is sure everywhere." : "No uncertainty is shown: auto-segment first.");
    this.doubts.at = (this.doubts.at + step + found.length) % found.length;
    this.screen.setCursor(this.grid.toShown(found[this.doubts.at]));
    this.say(`Uncertain place ${this.doubts.at + 1} of ${found.length}.`);
  }

  refresh() {
    this.table.rebuild();
    this.toolbar.refresh();
    this.strip?.refresh();
  }

  apply(name) {
    const value = this.settings.get(name), { screen } = this, { look } = screen.slices;
    if (name === "layout" || name === "solid") screen.setLayout(this.settings.get("layout"), this.settings.get("solid"));
    if (!this.isOpen) return;
    if (name === "window") {
      Object.assign(look, { low: value[0], width: value[1] });
      this.windowName = Object.keys(this.windows).find((known) => this.windows[known] === value) ?? "";
      screen.draw(...screen.only);
    }
    if (name === "opacity") this.colour();
    if (name === "limited" || name === "limits") this.guard();
    if (name === "smooth") screen.slices.interpolate(value);
    if (name === "outline") look.outline = value;
    if (name === "doubting") look.doubting = this.hasDoubt ? value : 0;
    if (name === "comparing") look.comparing = Boolean(this.compared) && value;
    if (name === "crosshair") screen.decorate({ crosshair: value });
    if (["smooth", "outline", "doubting", "comparing"].includes(name)) screen.draw();
    if (name === "solid") this.solid.show(value, this);
    if (name === "window") this.toolbar.refresh();
  }
}
