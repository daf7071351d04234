// Where an image's voxels lie in the patient, and what of them a view shows. All that is known of orientation is here.
//
// Three kinds of places are told apart. Own: indices [i, j, k] as the image's file counts them, first index fastest;
// labels are kept and sent so. Shown: mm along x (R is +), y (A is +)
// and z (S is +), from the corner of the image's box, along the image's own axes. View: mm to the right and upwards on the
// screen. An oblique image is shown along its own axes: each slice is one of its slices, so that none of it is interpolated.

export const PLANES = ["axial", "coronal", "sagittal"];
// Shown axes to the right, upwards, and through the slice. Radiological: the patient's right, and front, is on the left.
const AXES = { axial: [0, 1, 2], coronal: [0, 2, 1], sagittal: [1, 2, 0] };
const LETTERS = [["L", "R"], ["P", "A"], ["I", "S"]];
const ORDERS = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

export class Grid {
  /** shape: voxels along the own axes [I, J, K]; affine: 4 x 4 rows from own indices to RAS in mm. */
  constructor(shape, affine) {
    const columns = [0, 1, 2].map((own) => [0, 1, 2].map((row) => affine[row][own]));
    const spacing = columns.map((column) => Math.hypot(...column));
    if (!spacing.every((mm) => mm > 0 && Number.isFinite(mm))) throw new RangeError("The image's affine has an axis without length");
    const cosine = (shown, own) => columns[own][shown] / spacing[own];
    const fit = (order) => order.reduce((sum, own, shown) => sum + Math.abs(cosine(shown, own)), 0);
    /** own axis of each shown axis: those that run most alike */
    this.order = ORDERS.reduce((best, order) => (fit(order) > fit(best) + 1e-9 ? order : best));
    /** whether a shown axis runs against its own axis */
    this.flipped = this.order.map((own, shown) => cosine(shown, own) < 0);
    this.shape = [...shape];
    this.spacing = spacing;
    this.shownShape = this.order.map((own) => shape[own]);
    this.shownSpacing = this.order.map((own) => spacing[own]);
    this.size = this.shownShape.map((count, axis) => count * this.shownSpacing[axis]);
    this.millilitres = spacing[0] * spacing[1] * spacing[2] / 1000;
  }

  /** Shown axes of a plane: to the right, upwards, through. */
  axes(plane) { return AXES[plane]; }

  /** How many slices a plane has. */
  depth(plane) { return this.shownShape[AXES[plane][2]]; }

  /** The own axis that runs through the slices of a plane, and the own index of one of them. */
  slice(plane, shownIndex) {
    const axis = AXES[plane][2];
    return { axis: this.order[axis], index: this.flipped[axis] ? this.shownShape[axis] - 1 - shownIndex : shownIndex };
  }

  /** Shown mm (any, also between voxels' centres) to own indices, not rounded: a voxel's centre is a whole number. */
  toOwn(shown) {
    const own = [0, 0, 0];
    for (let axis = 0; axis < 3; axis++) {
      const from = shown[axis] / this.shownSpacing[axis] - 0.5;
      own[this.order[axis]] = this.flipped[axis] ? this.shownShape[axis] - 1 - from : from;
    }
    return own;
  }

  /** Own indices to shown mm; the inverse of `toOwn`. */
  toShown(own) {
    return [0, 1, 2].map((axis) => {
      const at = own[this.order[axis]];
      return ((this.flipped[axis] ? this.shownShape[axis] - 1 - at : at) + 0.5) * this.shownSpacing[axis];
    });
  }

  /** Whether a rounded own place is a voxel of the image. */
  holds(own) { return own.every((at, axis) => at >= 0 && at < this.shape[axis]); }

  /** Column-major 4 x 4 matrix from the shown box (0 to 1 along each axis) to the own box: for textures in the own order. */
  boxMatrix() {
    const matrix = new Float32Array(16);
    for (let axis = 0; axis < 3; axis++) {
      matrix[axis * 4 + this.order[axis]] = this.flipped[axis] ? -1 : 1;
      matrix[12 + this.order[axis]] = this.flipped[axis] ? 1 : 0;
    }
    matrix[15] = 1;
    return matrix;
  }

  /** Letters at the left, right, top and bottom of a plane's view. */
  letters(plane) {
    const [right, up] = AXES[plane].map((axis) => LETTERS[axis]);
    return { left: right[1], right: right[0], top: up[1], bottom: up[0] };
  }
}
