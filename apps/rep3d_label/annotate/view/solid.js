// The 3D view, on demand: a NiiVue of its own, which is given a coarser copy. It is to look at; nothing is painted in it.

import { h } from "../../dom.js";
import { NVImage, Niivue } from "../niivue.js";

const MOST = 160, MOST_IN_SOFTWARE = 96;  // voxels along an axis of the copy
const RENDER = 4, BYTES = 2;  // NiiVue's slice type, NIfTI's data type
const REST = 400;  // ms after an edit

export class Solid {
  /** screen: gives `element`, `panes` and `slices`. */
  constructor(screen) {
    this.screen = screen;
    this.nv = null;
    this.rgba = null;
  }

  /** Shows it or takes it away. stage: gives `grid`, `image`, `map` and the window. */
  async show(wanted, stage) {
    if (!wanted || !stage.isOpen) return this.close();
    if (this.nv) return;
    const { grid, image, map, settings } = stage;
    this.place3d = h("div", { class: "solid" }, h("canvas", { "aria-label": "3D view; drag to turn it" }));
    this.screen.element.append(this.place3d);
    this.place();
    const nv = this.nv = new Niivue({ logLevel: "silent", backColor: [0, 0, 0, 1], dragAndDropEnabled: false, isOrientCube: true });
    await nv.attachToCanvas(this.place3d.firstChild, false);
    nv.setSliceType(RENDER);
    const most = this.screen.slices.inSoftware ? MOST_IN_SOFTWARE : MOST;
    this.grid = grid;
    this.step = grid.shownShape.map((count) => Math.ceil(count / most));
    this.shape = grid.shownShape.map((count, axis) => Math.ceil(count / this.step[axis]));
    const [low, width] = settings.get("window");
    const grey = this.coarse(image.data, (value) => Math.min(255, Math.max(0, 255 * (value - low) / width)));
    const mm = this.step.map((by, axis) => by * grid.shownSpacing[axis]);
    const affine = [mm[0], 0, 0, 0, 0, mm[1], 0, 0, 0, 0, mm[2], 0, 0, 0, 0, 1];
    const file = await nv.createNiftiArray(this.shape, mm, affine, BYTES, grey);
    const volume = await NVImage.loadFromUrl({ url: file, name: "solid.nii", opacity: 0.35 });
    if (this.nv !== nv) return;  // taken away meanwhile
    nv.addVolume(volume);
    nv.createEmptyDrawing();
    this.colour(this.rgba);
    this.changed(map.voxels, 0);
  }

  /** Every so many-th voxel, in shown order; of labels the largest value of each block, so that thin parts do not vanish. */
  coarse(values, to = null) {
    const { grid, shape, step } = this, part = new Uint8Array(shape[0] * shape[1] * shape[2]);
    const strides = [1, grid.shape[0], grid.shape[0] * grid.shape[1]];
    const own = grid.order.map((axis) => strides[axis]);
    const start = own.reduce((sum, stride, axis) => sum + (grid.flipped[axis] ? stride * (grid.shownShape[axis] - 1) : 0), 0);
    const by = own.map((stride, axis) => (grid.flipped[axis] ? -stride : stride));
    const last = (at, axis) => Math.min(grid.shownShape[axis], (at + 1) * step[axis]);
    let n = 0;
    for (let z = 0; z < shape[2]; z++) {
      for (let y = 0; y < shape[1]; y++) {
        for (let x = 0; x < shape[0]; x++, n++) {
          if (to) {
            part[n] = to(values[start + x * step[0] * by[0] + y * step[1] * by[1] + z * step[2] * by[2]]);
            continue;
          }
          let most = 0;
          for (let c = z * step[2]; c < last(z, 2); c++) {
            for (let b = y * step[1]; b < last(y, 1); b++) {
              for (let a = x * step[0]; a < last(x, 0); a++) most = Math.max(most, values[start + a * by[0] + b * by[1] + c * by[2]]);
            }
          }
          part[n] = most;
        }
      }
    }
    return part;
  }

  /** Says that the label changed. */
  changed(labels, rest = REST) {
    clearTimeout(this.resting);
    if (!this.nv?.drawBitmap) return;
    this.resting = setTimeout(() => {
      this.nv.drawBitmap.set(this.coarse(labels));
      this.nv.refreshDrawing(true);
    }, rest);
  }

  colour(rgba) {
    this.rgba = rgba;
    if (!this.nv?.volumes.length || !rgba) return;
    const channel = (at) => Array.from({ length: 256 }, (_, value) => rgba[4 * value + at]);
    const [R, G, B, A] = [0, 1, 2, 3].map(channel), values = [...R.keys()];
    this.nv.setDrawColormap({ R, G, B, A: A.map((alpha) => (alpha ? 255 : 0)), I: values, labels: values.map(String) });
  }

  /** Into the pane that the layout has for it. */
  place() {
    const pane = this.screen.panes?.solid;
    if (!this.place3d) return;
    this.place3d.hidden = !pane;
    if (pane) ["left", "top", "width", "height"].forEach((side, at) => { this.place3d.style[side] = `${pane[at]}px`; });
  }

  close() {
    clearTimeout(this.resting);
    this.nv?.cleanup();
    this.nv?.gl?.getExtension("WEBGL_lose_context")?.loseContext();
    this.place3d?.remove();
    this.nv = this.place3d = null;
  }
}
