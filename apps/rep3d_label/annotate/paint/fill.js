// What is filled at once: the inside of a contour, and what is connected with a voxel.
import { neighbours } from "./box.js";

/**
 * Gives each voxel of one slice whose centre is inside a closed contour to `put(index)`; those on its line too.
 *
 * @param {number[]} shape voxels along the own axes
 * @param {number} flat the own axis through the slice
 * @param {number[][]} points own indices, not rounded; the last is joined with the first
 */
export function fillPolygon(shape, flat, points, put) {
  const [across, down] = [0, 1, 2].filter((axis) => axis !== flat);
  const steps = [1, shape[0], shape[0] * shape[1]];
  const start = Math.round(points[0][flat]) * steps[flat];
  const low = Math.max(0, Math.ceil(Math.min(...points.map((point) => point[down]))));
  const high = Math.min(shape[down] - 1, Math.floor(Math.max(...points.map((point) => point[down]))));
  for (let row = low; row <= high; row++) {
    const crossings = [];
    points.forEach((a, n) => {
      const b = points[(n + 1) % points.length];
      if (a[down] <= row !== b[down] <= row) crossings.push(a[across] + (row - a[down]) / (b[down] - a[down]) * (b[across] - a[across]));
    });
    crossings.sort((a, b) => a - b);
    for (let pair = 0; pair + 1 < crossings.length; pair += 2) {
      const last = Math.min(shape[across] - 1, Math.floor(crossings[pair + 1]));
      for (let at = Math.max(0, Math.ceil(crossings[pair])); at <= last; at++) put(start + row * steps[down] + at * steps[across]);
    }
  }
  // The line itself, so that a contour thinner than a voxel is not lost.
  points.forEach((a, n) => {
    const b = points[(n + 1) % points.length];
    const count = Math.max(1, Math.ceil(4 * Math.max(Math.abs(b[across] - a[across]), Math.abs(b[down] - a[down]))));
    for (let step = 0; step < count; step++) {
      const at = [across, down].map((axis) => Math.round(a[axis] + (b[axis] - a[axis]) * step / count));
      if (at[0] >= 0 && at[0] < shape[across] && at[1] >= 0 && at[1] < shape[down]) put(start + at[0] * steps[across] + at[1] * steps[down]);
    }
  });
}

/** Voxels; more would hold the page up, and are hardly one structure. */
export const MOST_FLOODED = 4_000_000;

/**
 * Return the indices of the voxels that are connected by faces with one voxel, have its label, and differ from it in grey value
 * by no more than `reach`; null where they are more than `MOST_FLOODED`.
 *
 * @param {number[]} from own indices of the voxel
 * @param {number} flat the own axis that is not left, so that one slice is filled; -1 for all three
 * @param {boolean} byLabel only the label counts, not the grey value
 */
export function flood(shape, from, flat, labels, grey, reach, byLabel = false) {
  const steps = [1, shape[0], shape[0] * shape[1]];
  const first = from[0] + from[1] * steps[1] + from[2] * steps[2];
  const label = labels[first], low = grey[first] - reach, high = grey[first] + reach;
  const seen = new Uint8Array((labels.length >> 3) + 1);
  const stack = [first], found = [];
  const around = neighbours(shape, [0, 1, 2].filter((axis) => axis !== flat));
  seen[first >> 3] |= 1 << (first & 7);
  while (stack.length) {
    const index = stack.pop();
    if (found.push(index) > MOST_FLOODED) return null;
    around(index, (next) => {
      if (seen[next >> 3] & 1 << (next & 7) || labels[next] !== label) return;
      if (!byLabel && !(grey[next] >= low && grey[next] <= high)) return;
      seen[next >> 3] |= 1 << (next & 7);
      stack.push(next);
    });
  }
  return Uint32Array.from(found).sort();
}
