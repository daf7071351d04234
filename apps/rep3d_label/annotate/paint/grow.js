// Grow-cut: what was painted grows into what looks alike, all labels at the same time, until they meet.
import { neighbours } from "./box.js";

const STEPS = 254;  // in which differences of grey are counted
const NOBODY = 0xffff, BACKGROUND = 0;

/**
 * Return the labels grown: every voxel belongs to the seed from which the way to it crosses the least change in grey value
 * (shortest paths, as in Zhu et al. 2014, "An effective interactive medical image segmentation method using fast GrowCut").
 *
 * @param {{shape: number[], labels: Uint8Array, grey: Float32Array}} box seeds are all voxels with a label
 * @param {{open: boolean[]}} options whether a face of the box (low i, j, k, high i, j, k) is the image's own border; the voxels on
 *   the others are background
 */
export function growCut({ shape, labels, grey }, { open }) {
  const around = neighbours(shape), count = labels.length;
  const sorted = grey.slice().sort(), low = sorted[Math.floor(0.01 * (count - 1))], high = sorted[Math.floor(0.99 * (count - 1))];
  const factor = high > low ? STEPS / (high - low) : 0;
  const shade = Int16Array.from(grey, (value) => Math.min(STEPS, Math.max(0, (value - low) * factor || 0)));
  const owner = new Uint16Array(count).fill(NOBODY), cost = new Uint32Array(count).fill(0xffffffff);
  // A queue by cost: no step costs more than STEPS + 1, so this many buckets go round.
  const buckets = Array.from({ length: STEPS + 2 }, () => []);
  let waiting = 0;
  const reach = (at, by, price) => {
    if (price >= cost[at]) return;
    cost[at] = price;
    owner[at] = by;
    buckets[price % buckets.length].push(at);
    waiting++;
  };
  for (let at = 0; at < count; at++) if (labels[at]) reach(at, labels[at], 0);
  for (let axis = 0; axis < 3; axis++) {
    for (const side of [0, 1]) {
      if (open[axis + 3 * side]) continue;
      face(shape, axis, side ? shape[axis] - 1 : 0, (at) => { if (!labels[at]) reach(at, BACKGROUND, 0); });
    }
  }
  for (let price = 0; waiting; price++) {
    const bucket = buckets[price % buckets.length];
    for (let n = 0; n < bucket.length; n++) {  // it may grow meanwhile
      const at = bucket[n];
      waiting--;
      if (cost[at] !== price) continue;
      around(at, (next) => { if (!labels[next]) reach(next, owner[at], price + 1 + Math.abs(shade[at] - shade[next])); });
    }
    bucket.length = 0;
  }
  return labels.map((label, at) => label || (owner[at] === NOBODY ? 0 : owner[at]));
}

function face(shape, axis, index, visit) {
  const steps = [1, shape[0], shape[0] * shape[1]], [b, c] = [0, 1, 2].filter((other) => other !== axis);
  for (let v = 0; v < shape[c]; v++) for (let u = 0; u < shape[b]; u++) visit(index * steps[axis] + u * steps[b] + v * steps[c]);
}
