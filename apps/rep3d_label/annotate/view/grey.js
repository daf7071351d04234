// Grey values: what an image holds, how its values are sent to the card, and which windows are offered.

const SAMPLE = 1 << 18;

/** CT windows in Hounsfield units, [centre, width], as radiology uses them. */
const CT = { "Soft tissue": [40, 400], "Lung": [-600, 1500], "Bone": [400, 1800] };
/** Percentiles of the grey values, for images whose numbers have no unit (MR). */
const SHARES = { "1 to 99 %": [0.01, 0.99], "5 to 95 %": [0.05, 0.95], "25 to 99.5 %": [0.25, 0.995] };

/** Sorted values of about a quarter of a million voxels from all over the image; those that are no numbers left out. */
export function sample(data) {
  let step = Math.max(1, Math.floor(data.length / SAMPLE));
  while (step > 1 && [2, 3, 5, 7].some((prime) => step % prime === 0)) step++;  // no common measure with rows
  const values = new Float32Array(Math.ceil(data.length / step));
  let count = 0;
  for (let at = 0; at < data.length; at += step) {
    const value = Number(data[at]);
    if (Number.isFinite(value)) values[count++] = value;
  }
  return values.subarray(0, count).sort();
}

export const percentile = (sorted, share) => (sorted.length ? sorted[Math.round(share * (sorted.length - 1))] : 0);

/** Whether values look like Hounsfield units: air outside is far below zero. */
const likeCt = (sorted) => percentile(sorted, 0) <= -500 && percentile(sorted, 1) >= 200;

/** Windows by name, [low, width]; the first is the one to begin with. modality: "CT", "MR" ... where it is known. */
export function windows(sorted, modality = "") {
  const isCt = modality ? /^ct/i.test(modality) : likeCt(sorted);
  const found = {};
  for (const [name, [centre, width]] of Object.entries(isCt ? CT : {})) found[name] = [centre - width / 2, width];
  for (const [name, [from, to]] of Object.entries(isCt ? {} : SHARES)) found[name] = between(percentile(sorted, from), percentile(sorted, to));
  found["All"] = between(percentile(sorted, 0), percentile(sorted, 1));
  return found;
}

const between = (low, high) => [low, high > low ? high - low : 1];

/** How values become half floats: (value - zero) * factor, so that small differences near the darkest stay. */
export function scaleOf(sorted) {
  const zero = percentile(sorted, 0), range = percentile(sorted, 0.999) - zero || percentile(sorted, 1) - zero;
  return { zero, factor: range > 0 ? 1024 / range : 1 };
}
