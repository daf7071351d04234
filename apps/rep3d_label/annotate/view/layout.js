// Where the views lie on the stage, and how each of them shows its plane: which mm are where. Pure numbers.

import { PLANES } from "../paint/grid.js";

const GAP = 4;
const EDGE = 2;  // pixels around a change in which outlines change too

/** Rectangles [left, top, width, height] of the panes that a layout has; "solid" is the 3D view's. */
export function panes(layout, width, height, solid) {
  const wide = width >= height;
  if (layout !== "three" && solid) return panesBeside(layout, width, height, wide);
  if (layout !== "three") return { [layout]: [0, 0, width, height] };
  if (solid) {
    const w = (width - GAP) / 2, h = (height - GAP) / 2;
    return whole({ axial: [0, 0, w, h], coronal: [w + GAP, 0, w, h], sagittal: [w + GAP, h + GAP, w, h], solid: [0, h + GAP, w, h] });
  }
  const share = wide ? (width - GAP) * 0.58 : (height - GAP) * 0.58;
  if (wide) {
    const w = width - GAP - share, h = (height - GAP) / 2;
    return whole({ axial: [0, 0, share, height], coronal: [share + GAP, 0, w, h], sagittal: [share + GAP, h + GAP, w, h] });
  }
  const w = (width - GAP) / 2, h = height - GAP - share;
  return whole({ axial: [0, 0, width, share], coronal: [0, share + GAP, w, h], sagittal: [w + GAP, share + GAP, w, h] });
}

const panesBeside = (layout, width, height, wide) => whole(wide
  ? { [layout]: [0, 0, (width - GAP) * 0.6, height], solid: [(width - GAP) * 0.6 + GAP, 0, (width - GAP) * 0.4, height] }
  : { [layout]: [0, 0, width, (height - GAP) * 0.6], solid: [0, (height - GAP) * 0.6 + GAP, width, (height - GAP) * 0.4] });

const whole = (places) => Object.fromEntries(Object.entries(places).map(([name, [x, y, w, h]]) => {
  const left = Math.round(x), top = Math.round(y);
  return [name, [left, top, Math.max(1, Math.round(x + w) - left), Math.max(1, Math.round(y + h) - top)]];
}));

/** How one plane is shown: its pane, the mm in the pane's middle, and the zoom (1: all of it fits). */
export class View {
  constructor(plane, grid) {
    Object.assign(this, { plane, grid, pane: [0, 0, 1, 1], zoom: 1 });
    this.centre();
  }

  centre() {
    const [right, up] = this.grid.axes(this.plane);
    this.middle = [this.grid.size[right] / 2, this.grid.size[up] / 2];
    this.zoom = 1;
  }

  /** mm that one pixel of the stage stands for. */
  get mmPerPixel() {
    const [right, up] = this.grid.axes(this.plane);
    const [, , width, height] = this.pane;
    return Math.max(this.grid.size[right] / width, this.grid.size[up] / height) / this.zoom;
  }

  /** What the pane shows, in mm: [lowest, highest] of the axis to the right, and of the one upwards. */
  get field() {
    const [, , width, height] = this.pane, mm = this.mmPerPixel;
    return this.middle.map((at, axis) => {
      const half = (axis ? height : width) * mm / 2;
      return [at - half, at + half];
    });
  }

  holds(x, y) {
    const [left, top, width, height] = this.pane;
    return x >= left && x < left + width && y >= top && y < top + height;
  }

  /** A pixel of the stage to shown mm, in the slice at `cursor` (shown mm). */
  toShown(x, y, cursor) {
    const [left, top, width, height] = this.pane, mm = this.mmPerPixel;
    const [right, up] = this.grid.axes(this.plane);
    const shown = [...cursor];
    // Radiological, in every plane: what grows, grows to the left.
    shown[right] = this.middle[0] - (x - left - width / 2) * mm;
    shown[up] = this.middle[1] - (y - top - height / 2) * mm;
    return shown;
  }

  /** Shown mm to a pixel of the stage. */
  toPixel(shown) {
    const [left, top, width, height] = this.pane, mm = this.mmPerPixel;
    const [right, up] = this.grid.axes(this.plane);
    return [left + width / 2 - (shown[right] - this.middle[0]) / mm, top + height / 2 - (shown[up] - this.middle[1]) / mm];
  }

  /** The rectangle [left, top, width, height] of the pane, in whole pixels, that an own box [i, j, k, i, j, k] covers. */
  rectangle(box) {
    const corners = [0, 3].map((end) => this.toPixel(this.grid.toShown([0, 1, 2].map((axis) => box[axis + end] + (end ? 0.5 : -0.5)))));
    const [left, top, width, height] = this.pane;
    const [x0, y0] = [0, 1].map((side) => Math.floor(Math.min(corners[0][side], corners[1][side])) - EDGE);
    const [x1, y1] = [0, 1].map((side) => Math.ceil(Math.max(corners[0][side], corners[1][side])) + EDGE);
    const from = [Math.max(left, x0), Math.max(top, y0)], to = [Math.min(left + width, x1), Math.min(top + height, y1)];
    return [...from, Math.max(0, to[0] - from[0]), Math.max(0, to[1] - from[1])];
  }

  pan(dx, dy) {
    const mm = this.mmPerPixel;
    this.middle = [this.middle[0] + dx * mm, this.middle[1] + dy * mm];
  }

  /** Zooms so that what is at a pixel stays there. */
  zoomAt(x, y, factor) {
    const before = this.toShown(x, y, [0, 0, 0]);
    this.zoom = Math.min(40, Math.max(0.5, this.zoom * factor));
    const after = this.toShown(x, y, [0, 0, 0]);
    const [right, up] = this.grid.axes(this.plane);
    this.middle = [this.middle[0] + before[right] - after[right], this.middle[1] + before[up] - after[up]];
  }
}

export const viewsOf = (grid) => Object.fromEntries(PLANES.map((plane) => [plane, new View(plane, grid)]));
