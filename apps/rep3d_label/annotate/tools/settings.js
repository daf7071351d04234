// What is chosen at the moment: tool, size, label, window ... One place that all parts read, and an event when one changes.

export const SIZES = [0, 1, 2, 3, 4, 6, 8, 10, 14, 20, 30, 45, 60];  // mm across; 0: one voxel

const FIRST = {
  tool: "brush",       // "move", "brush", "eraser", "contour", "fill"
  size: 6,             // of brush and eraser, mm across
  ball: false,         // they reach into the neighbouring slices
  value: 1,            // of the label in hand
  limited: false,      // only voxels with grey values within `limits` are painted
  limits: [0, 1],
  tolerance: 0.1,      // of the flood fill, as a share of the window's width
  everywhere: false,   // the flood fill goes through all slices
  sigma: 2,            // of smoothing, mm
  smallest: 0.1,       // parts of a label below so many ml are small
  layout: "three",     // or the name of one plane
  solid: false,        // the 3D view
  window: [0, 1],      // lowest grey value and width
  opacity: 0.5,
  outline: 0,          // 0: filled, 1: filled with an outline, 2: outline alone
  smooth: true,        // grey values between voxels' centres are interpolated
  crosshair: true,
  doubting: 0.6,       // opacity of the uncertainty
  comparing: true,     // what is compared is shown
};

export class Settings extends EventTarget {
  constructor() {
    super();
    this.values = { ...FIRST };
  }

  get(name) { return this.values[name]; }

  /** Events: "change", with the name in detail. */
  set(name, value) {
    if (!(name in FIRST)) throw new RangeError(`There is no setting ${name}`);
    if (this.values[name] === value) return;
    this.values[name] = value;
    this.dispatchEvent(new CustomEvent("change", { detail: name }));
  }

  toggle(name) { this.set(name, !this.get(name)); }
}
