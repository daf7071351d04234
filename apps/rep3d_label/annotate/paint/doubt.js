// Uncertainty: where it is highest, so that someone can go from one such place to the next.

const BLOCK_MM = 12;
const MOST = 40;
const LEAST = 0.02;  // mean of a block that is worth going to: an outline, two voxels thick, through it has some 0.05

/**
 * Return the places to look at, the most uncertain first: own indices of the most uncertain voxel of each block of about 12 mm
 * whose mean is above that of all blocks beside it.
 *
 * @param {number[]} shape voxels along the own axes
 * @param {number[]} spacing mm along them
 * @param {Float32Array} map 0 to 1, in the own order
 * @param {function} rest is awaited after each layer of blocks, so that the page stays alive
 */
export async function places(shape, spacing, map, rest) {
  const size = spacing.map((mm) => Math.max(1, Math.round(BLOCK_MM / mm)));
  const [A, B, C] = shape.map((count, axis) => Math.ceil(count / size[axis]));
  const sums = new Float64Array(A * B * C), counts = new Float64Array(A * B * C);
  const best = new Float32Array(A * B * C).fill(-1), where = new Uint32Array(A * B * C);
  for (let k = 0, at = 0; k < shape[2]; k++) {
    for (let j = 0; j < shape[1]; j++) {
      const row = A * (Math.floor(j / size[1]) + B * Math.floor(k / size[2]));
      for (let i = 0; i < shape[0]; i++, at++) {
        const block = row + Math.floor(i / size[0]), value = map[at];
        sums[block] += value;
        counts[block]++;
        if (value > best[block]) {
          best[block] = value;
          where[block] = at;
        }
      }
    }
    if (k % size[2] === 0) await rest();
  }
  const mean = sums.map((sum, block) => sum / counts[block]);
  const found = [];
  for (let block = 0; block < mean.length; block++) {
    const a = block % A, b = Math.floor(block / A) % B, c = Math.floor(block / (A * B));
    let highest = mean[block] >= LEAST;
    for (let z = Math.max(0, c - 1); highest && z <= Math.min(C - 1, c + 1); z++) {
      for (let y = Math.max(0, b - 1); y <= Math.min(B - 1, b + 1); y++) {
        for (let x = Math.max(0, a - 1); x <= Math.min(A - 1, a + 1); x++) {
          const other = x + A * (y + B * z);
          if (mean[other] > mean[block] || (mean[other] === mean[block] && other < block)) highest = false;
        }
      }
    }
    if (highest) found.push(block);
  }
  found.sort((x, y) => mean[y] - mean[x]);
  return found.slice(0, MOST).map((block) => {
    const at = where[block];
    return [at % shape[0], Math.floor(at / shape[0]) % shape[1], Math.floor(at / (shape[0] * shape[1]))];
  });
}
