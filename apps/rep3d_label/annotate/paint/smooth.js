// Smoothing: a voxel keeps or gets a label where most of what is around it has that label.

/**
 * Return the labels with one value smoothed; voxels of other labels stay as they are.
 *
 * What is around a voxel is weighted by three running means, near enough to a Gaussian of `sigma` mm. Beyond the box is nothing.
 */
export function smooth({ shape, spacing, labels }, { value, sigma }) {
  let mask = Float32Array.from(labels, (label) => (label === value ? 1 : 0)), other = new Float32Array(mask.length);
  const steps = [1, shape[0], shape[0] * shape[1]];
  for (let axis = 0; axis < 3; axis++) {
    // Three running means of width w have the variance (w * w - 1) / 4, in voxels.
    const half = Math.round((Math.sqrt(4 * (sigma / spacing[axis]) ** 2 + 1) - 1) / 2);
    if (half < 1) continue;
    for (let pass = 0; pass < 3; pass++) {
      runningMean(mask, other, shape, steps, axis, half);
      [mask, other] = [other, mask];
    }
  }
  return labels.map((label, at) => (label !== value && label !== 0 ? label : mask[at] > 0.5 || (mask[at] === 0.5 && label) ? value : 0));
}

function runningMean(from, to, shape, steps, axis, half) {
  const count = shape[axis], step = steps[axis], share = 1 / (2 * half + 1);
  const [b, c] = [0, 1, 2].filter((other) => other !== axis);
  for (let v = 0; v < shape[c]; v++) {
    for (let u = 0; u < shape[b]; u++) {
      const line = u * steps[b] + v * steps[c];
      let sum = 0;
      for (let at = 0; at < Math.min(half, count); at++) sum += from[line + at * step];
      for (let at = 0; at < count; at++) {
        if (at + half < count) sum += from[line + (at + half) * step];
        if (at - half - 1 >= 0) sum -= from[line + (at - half - 1) * step];
        to[line + at * step] = sum * share;
      }
    }
  }
}
