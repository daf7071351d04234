// The screen: one canvas with the panes of all views, another above it for letters and lines. It draws what is due, and nothing
// else: a stroke draws that part of its view which it changed, at once, and the other views when the hand rests.

import { h } from "../../dom.js";
import { PLANES } from "../paint/grid.js";
import { panes, viewsOf } from "./layout.js";
import { drawOver } from "./over.js";
import { Slices } from "./slices.js";

const REST = 200;  // ms without a stroke until the other views follow

export class Screen extends EventTarget {
  /** Events: "placed", "pace" (detail.ms: what a picture takes, now and then), "lost" (the card draws no more), "back" (it can again). */
  constructor(element) {
    super();
    this.canvas = this.newCanvas();
    this.over = h("canvas", { class: "over", tabindex: 0, role: "application", "aria-label": "Slices of the image; press ? for all keys" });
    this.ring = h("div", { class: "ring", hidden: true });
    this.element = h("div", { class: "screen" }, this.canvas, this.over, this.ring);
    element.append(this.element);
    this.slices = new Slices(this.canvas);
    this.lost = false;
    this.layout = "three";
    this.solid = false;
    this.due = new Map();  // plane to the rectangle that is to be drawn, or null: all of it
    this.later = new Set();
    this.decoration = {};
    this.only = [];  // planes that a new window is drawn in while it is dragged
    this.frame = 0;
    this.drawn = 0;
    this.slow = false;  // then it is looked at more often
    this.watch = new ResizeObserver(() => this.place());
  }

  newCanvas() {
    const canvas = h("canvas", { class: "slices" });
    canvas.addEventListener("webglcontextlost", (event) => {
      if (canvas !== this.canvas) return;
      event.preventDefault();  // so that it is told when it is back
      this.lost = true;
      this.dispatchEvent(new Event("lost"));
    });
    canvas.addEventListener("webglcontextrestored", () => { if (canvas === this.canvas) this.dispatchEvent(new Event("back")); });
    return canvas;
  }

  async start() {
    await this.slices.start();
    this.watch.observe(this.element);
  }

  /** Draws on a canvas of its own from now on, as the card has lost all that it was sent. */
  async renew(image, labels) {
    const { grid, slices: { look, maps } } = this, canvas = this.newCanvas(), slices = Object.assign(new Slices(canvas), { look });
    this.canvas.before(canvas);
    try {
      await slices.start();
    } catch (error) {
      canvas.remove();
      throw error;
    }
    this.canvas.remove();
    Object.assign(this, { canvas, slices });
    try {
      if (grid) await slices.load(grid, image, labels);
      for (const name of ["other", "doubt"]) if (maps[name]) await slices.overlay(name, maps[name]);
    } catch (error) {
      if (this.grid === grid) throw error;  // else it was closed meanwhile
    }
    if (slices.gl.isContextLost()) throw new Error("it stopped again");
    this.lost = false;
    this.place();
  }

  async open(grid, image, labels) {
    this.grid = null;
    await this.slices.load(grid, image, labels);
    this.views = viewsOf(grid);
    this.cursor = grid.shownShape.map((count, axis) => (Math.floor(count / 2) + 0.5) * grid.shownSpacing[axis]);
    this.grid = grid;
    this.place();
  }

  close() {
    this.grid = null;
    this.due.clear();
    this.later.clear();
    this.slices.close();
    this.over.getContext("2d").clearRect(0, 0, this.over.width, this.over.height);
  }

  /** Panes anew, after a change of size or layout. */
  place() {
    const { clientWidth: width, clientHeight: height } = this.element;
    this.ratio = this.slices.inSoftware ? 1 : Math.min(2, window.devicePixelRatio || 1);
    const pixels = (side) => Math.max(1, Math.round(side * this.ratio));
    for (const canvas of [this.canvas, this.over]) Object.assign(canvas, { width: pixels(width), height: pixels(height) });
    this.panes = panes(this.layout, width, height, this.solid);
    if (!this.grid) return;
    this.wiped = false;
    this.showRing(null);
    for (const plane of this.shown) this.views[plane].pane = this.panes[plane];
    this.dispatchEvent(new Event("placed"));
    this.draw();
  }

  setLayout(layout, solid = this.solid) {
    Object.assign(this, { layout, solid });
    this.place();
  }

  /** Planes that are on the screen. */
  get shown() { return PLANES.filter((plane) => plane in (this.panes ?? {})); }

  /** The view at a pixel of the stage, or null. */
  viewAt(x, y) {
    const plane = this.shown.find((name) => this.views[name].holds(x, y));
    return plane ? this.views[plane] : null;
  }

  /** Moves the cursor to the voxel at shown mm, into the image where it is outside; the slices follow. */
  setCursor(shown) {
    const { shownShape, shownSpacing } = this.grid, before = this.cursor;
    // To the voxel's middle: between two slices a view would show a mixture of both.
    this.cursor = shown.map((mm, axis) => (Math.min(shownShape[axis] - 1, Math.max(0, Math.floor(mm / shownSpacing[axis]))) + 0.5) * shownSpacing[axis]);
    for (const plane of this.shown) {
      const through = this.grid.axes(plane)[2];
      if (before[through] !== this.cursor[through]) this.due.set(plane, null);
    }
    this.overDue = true;
    this.schedule();
  }

  /** Index of the slice that a plane shows, among the shown ones. */
  sliceOf(plane) {
    const axis = this.grid.axes(plane)[2];
    return Math.floor(this.cursor[axis] / this.grid.shownSpacing[axis]);
  }

  scroll(plane, steps) {
    const axis = this.grid.axes(plane)[2], cursor = [...this.cursor];
    cursor[axis] += steps * this.grid.shownSpacing[axis];
    this.setCursor(cursor);
  }

  /** Says that the labels changed in an own box; `first` is the plane that someone paints in. */
  changed(labels, box, first = "") {
    if (!box) return;
    this.slices.upload("labels", labels, box);
    for (const plane of this.shown) {
      const { axis, index } = this.grid.slice(plane, this.sliceOf(plane));
      if (index < box[axis] || index > box[axis + 3]) continue;
      if (first && plane !== first) this.later.add(plane);
      else {
        const part = this.views[plane].rectangle(box);
        this.due.set(plane, this.due.has(plane) ? joined(this.due.get(plane), part) : part);
      }
    }
    if (this.later.size) {
      clearTimeout(this.resting);
      this.resting = setTimeout(() => this.follow(), REST);
    }
    this.schedule();
  }

  /** Draws the views that waited for the hand to rest. */
  follow() {
    for (const plane of this.later) this.due.set(plane, null);
    this.schedule();
  }

  /** Draws planes (none named: all) in the next frame. */
  draw(...planes) {
    for (const plane of planes.length ? planes : this.shown) this.due.set(plane, null);
    this.overDue = true;
    this.schedule();
  }

  /** What lies above the slices, besides letters: {crosshair: boolean, path}, for `drawOver`. */
  decorate(decoration) {
    Object.assign(this.decoration, decoration);
    this.overDue = true;
    this.schedule();
  }

  /** Shows the brush at a pixel of the stage, with a radius in pixels; null: nowhere. An element of its own: it moves without being drawn. */
  showRing(place, radius = 0) {
    this.ring.hidden = !place;
    if (!place) return;
    this.ring.style.width = this.ring.style.height = `${2 * radius}px`;
    this.ring.style.transform = `translate(${place[0] - radius}px, ${place[1] - radius}px)`;
  }

  schedule() { this.frame ||= requestAnimationFrame(() => this.paint()); }

  paint() {
    this.frame = 0;
    if (!this.grid || this.lost) return;
    const due = [...this.due].filter(([plane]) => plane in this.panes);
    this.due.clear();
    const start = performance.now();
    // With the first picture of a layout, so that nothing of the one before is left between the views.
    if (!this.wiped) this.slices.clear();
    this.wiped = true;
    for (const [plane, part] of due) {
      this.later.delete(plane);
      this.slices.draw(this.views[plane], this.cursor, this.ratio, part ?? undefined);
    }
    if (due.length && ++this.drawn % (this.slow ? 4 : 16) === 0) {
      this.slices.finish();
      this.dispatchEvent(new CustomEvent("pace", { detail: { ms: performance.now() - start } }));
    }
    if (this.overDue) drawOver(this.over.getContext("2d"), this);
    this.overDue = false;
  }

  /** Draws all that is due now, the views that wait for the hand to rest too; resolves when it is there. Also in a hidden tab. */
  async settle() {
    if (!this.grid) return;
    clearTimeout(this.resting);
    this.follow();
    cancelAnimationFrame(this.frame);
    this.paint();
    await this.slices.arrived();
  }
}

/** The rectangle around two; null: all of the pane. */
function joined(a, b) {
  if (!a || !b) return null;
  const left = Math.min(a[0], b[0]), top = Math.min(a[1], b[1]);
  return [left, top, Math.max(a[0] + a[2], b[0] + b[2]) - left, Math.max(a[1] + a[3], b[1] + b[3]) - top];
}
