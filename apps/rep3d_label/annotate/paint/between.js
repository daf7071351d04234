// Interpolation between slices: whoever labelled every fifth slice gets the four between.

const FAR = 1e12;

/**
 * Return the labels with the slices between two labelled ones filled, by the mean of their distances from the outline.
 *
 * @param {{shape: number[], spacing: number[], labels: Uint8Array}} box
 * @param {{value: number, axis: number}} options of the label, and the own axis through the slices
 */
export function fillBetween({ shape, spacing, labels }, { value, axis }) {
  const [b, c] = [0, 1, 2].filter((other) => other !== axis);
  const steps = [1, shape[0], shape[0] * shape[1]];
  const size = shape[b] * shape[c];
  const place = (slice, u, v) => slice * steps[axis] + u * steps[b] + v * steps[c];
  const has = (slice) => {
    for (let v = 0; v < shape[c]; v++) for (let u = 0; u < shape[b]; u++) if (labels[place(slice, u, v)] === value) return true;
    return false;
  };
  const signed = (slice) => {
    const inside = new Float64Array(size), outside = new Float64Array(size);
    for (let v = 0; v < shape[c]; v++) {
      for (let u = 0; u < shape[b]; u++) {
        const is = labels[place(slice, u, v)] === value;
        inside[u + v * shape[b]] = is ? FAR : 0;
        outside[u + v * shape[b]] = is ? 0 : FAR;
      }
    }
    for (const field of [inside, outside]) distances(field, shape[b], shape[c], spacing[b], spacing[c]);
    return outside.map((square, at) => Math.sqrt(square) - Math.sqrt(inside[at]));
  };
  const filled = labels.slice();
  const labelled = Array.from({ length: shape[axis] }, (_, slice) => slice).filter(has);
  for (let n = 0; n + 1 < labelled.length; n++) {
    const [low, high] = [labelled[n], labelled[n + 1]];
    if (high - low < 2) continue;
    const [below, above] = [signed(low), signed(high)];
    for (let slice = low + 1; slice < high; slice++) {
      const share = (slice - low) / (high - low);
      for (let at = 0; at < size; at++) {
        const to = place(slice, at % shape[b], Math.floor(at / shape[b]));
        if (filled[to] === 0 && (1 - share) * below[at] + share * above[at] <= 0) filled[to] = value;
      }
    }
  }
  return filled;
}

/** Turns 0 and FAR into squared distances in mm from the nearest 0 (Felzenszwalb and Huttenlocher 2012). */
function distances(field, width, height, mmAcross, mmDown) {
  for (let row = 0; row < height; row++) line(field, row * width, 1, width, mmAcross);
  for (let column = 0; column < width; column++) line(field, column, width, height, mmDown);
}

function line(field, start, step, count, mm) {
  const value = Float64Array.from({ length: count }, (_, at) => field[start + at * step]);
  const lowest = new Int32Array(count), from = new Float64Array(count + 1);
  let last = 0;
  from[0] = -Infinity;
  from[1] = Infinity;
  for (let at = 1; at < count; at++) {
    let meet;
    do {
      const other = lowest[last];
      meet = ((value[at] + (at * mm) ** 2) - (value[other] + (other * mm) ** 2)) / (2 * mm * mm * (at - other));
    } while (meet <= from[last] && --last >= 0);
    lowest[++last] = at;
    from[last] = meet;
    from[last + 1] = Infinity;
  }
  for (let at = 0, near = 0; at < count; at++) {
    while (from[near + 1] < at) near++;
    field[start + at * step] = ((at - lowest[near]) * mm) ** 2 + value[lowest[near]];
  }
}
