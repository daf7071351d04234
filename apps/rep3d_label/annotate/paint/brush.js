// The brush: what lies within a distance, in mm, of a path. So it is round where voxels are not cubes.

/**
 * Paints along a path, with `put(index)` for each voxel; one may be given more than once.
 *
 * @param {number[]} shape voxels along the own axes
 * @param {number[]} spacing mm along them
 * @param {number[]} from own indices, not rounded
 * @param {number[]} to the same; equal to `from` for a dab
 * @param {number} radius mm; the voxels that the path itself runs through are painted whatever it is
 * @param {number} flat the own axis that a disc has no thickness along; -1 for a ball
 */
export function stroke(shape, spacing, from, to, radius, flat, put) {
  const [I, J] = shape;
  const low = [], high = [], along = [];
  for (let axis = 0; axis < 3; axis++) {
    const reach = axis === flat ? 0 : radius / spacing[axis];
    low[axis] = Math.max(0, axis === flat ? Math.round(from[axis]) : Math.ceil(Math.min(from[axis], to[axis]) - reach));
    high[axis] = Math.min(shape[axis] - 1, axis === flat ? Math.round(from[axis]) : Math.floor(Math.max(from[axis], to[axis]) + reach));
    along[axis] = axis === flat ? 0 : (to[axis] - from[axis]) * spacing[axis];
  }
  const square = along[0] ** 2 + along[1] ** 2 + along[2] ** 2;
  const most = radius * radius * (1 + 1e-9);
  for (let k = low[2]; k <= high[2]; k++) {
    const z = flat === 2 ? 0 : (k - from[2]) * spacing[2];
    for (let j = low[1]; j <= high[1]; j++) {
      const y = flat === 1 ? 0 : (j - from[1]) * spacing[1];
      for (let i = low[0]; i <= high[0]; i++) {
        const x = flat === 0 ? 0 : (i - from[0]) * spacing[0];
        const part = square ? Math.min(1, Math.max(0, (x * along[0] + y * along[1] + z * along[2]) / square)) : 0;
        const dx = x - part * along[0], dy = y - part * along[1], dz = z - part * along[2];
        if (dx * dx + dy * dy + dz * dz <= most) put(i + I * (j + J * k));
      }
    }
  }
  // The path itself, in steps of a quarter of a voxel: a brush finer than a voxel leaves no gaps.
  const steps = Math.max(1, Math.ceil(4 * Math.max(...from.map((at, axis) => Math.abs(to[axis] - at)))));
  for (let step = 0; step <= steps; step++) {
    const at = from.map((start, axis) => Math.round(start + (axis === flat ? 0 : (to[axis] - start) * step / steps)));
    if (at.every((index, axis) => index >= 0 && index < shape[axis])) put(at[0] + I * (at[1] + J * at[2]));
  }
}
