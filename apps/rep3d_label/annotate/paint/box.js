// Parts of an image: what is worked on is a box around the labels, not all of it. Boxes are [i, j, k, i, j, k], both ends in them.

/** Return the box around all voxels for which `wanted` (256 flags, by value) holds, or null. */
export function bounds(shape, labels, wanted) {
  const [I, J, K] = shape, box = [I, J, K, -1, -1, -1];
  let at = 0;
  for (let k = 0; k < K; k++) {
    for (let j = 0; j < J; j++) {
      let first = -1, last = -1;
      for (let i = 0; i < I; i++) {
        if (!wanted[labels[at++]]) continue;
        if (first < 0) first = i;
        last = i;
      }
      if (first < 0) continue;
      box[0] = Math.min(box[0], first);
      box[3] = Math.max(box[3], last);
      box[1] = Math.min(box[1], j);
      box[4] = Math.max(box[4], j);
      box[2] = Math.min(box[2], k);
      box[5] = k;
    }
  }
  return box[3] < 0 ? null : box;
}

/** Return a function of an index and what visits the indices of its neighbours by faces, along all axes or some. */
export function neighbours(shape, axes = [0, 1, 2]) {
  const steps = [1, shape[0], shape[0] * shape[1]];
  return (index, visit) => {
    for (const axis of axes) {
      const at = Math.floor(index / steps[axis]) % shape[axis];
      if (at > 0) visit(index - steps[axis]);
      if (at < shape[axis] - 1) visit(index + steps[axis]);
    }
  };
}

/** Return the box made larger by mm on each side, as far as the image goes. */
export function widened(box, shape, spacing, mm) {
  return box.map((at, side) => {
    const axis = side % 3, by = Math.ceil(mm / spacing[axis]);
    return side < 3 ? Math.max(0, at - by) : Math.min(shape[axis] - 1, at + by);
  });
}

export const extent = (box) => [0, 1, 2].map((axis) => box[axis + 3] - box[axis] + 1);

/** Return the values inside a box as an array of the given kind. */
export function crop(shape, values, box, Kind) {
  const [a, b, c] = extent(box), part = new Kind(a * b * c);
  let to = 0;
  for (let k = box[2]; k <= box[5]; k++) {
    for (let j = box[1]; j <= box[4]; j++, to += a) {
      const from = box[0] + shape[0] * (j + shape[1] * k);
      part.set(values.subarray(from, from + a), to);
    }
  }
  return part;
}

/** Gives `put(index, value)` each voxel of a box, in the own order. */
export function paste(shape, part, box, put) {
  let at = 0;
  for (let k = box[2]; k <= box[5]; k++) {
    for (let j = box[1]; j <= box[4]; j++) {
      const row = shape[0] * (j + shape[1] * k);
      for (let i = box[0]; i <= box[3]; i++) put(row + i, part[at++]);
    }
  }
}
