// The label in hand: one byte a voxel in the image's own order, how many voxels each label has, and what can be undone.

const MOST_STEPS = 100;
/** What the steps may take together. A stroke takes some kilobytes; a step of noise over a whole large image may take all of it. */
export const MOST_BYTES = 256 * 2 ** 20;
const RUN_BYTES = 10;
const CHUNK = 1 << 20;  // voxels that are copied at a stretch

let numbers = 0; // each step of the page, and each beginning, has one of its own

/** Changes in the order in which they were made, as runs of voxels with one value before and one after. */
class Step {
  constructor(words) {
    this.words = words;
    this.number = ++numbers;
    this.runs = 0;
    this.reserve(64);
  }

  reserve(room) {
    const grown = (Kind, old) => { const next = new Kind(room); if (old) next.set(old.subarray(0, this.runs)); return next; };
    this.starts = grown(Uint32Array, this.starts);
    this.lengths = grown(Uint32Array, this.lengths);
    this.before = grown(Uint8Array, this.before);
    this.after = grown(Uint8Array, this.after);
  }

  add(index, before, after) {
    const last = this.runs - 1;
    if (last >= 0 && this.starts[last] + this.lengths[last] === index && this.before[last] === before && this.after[last] === after) {
      this.lengths[last]++;
      return;
    }
    if (this.runs === this.starts.length) this.reserve(this.runs * 2);
    this.starts[this.runs] = index;
    this.lengths[this.runs] = 1;
    this.before[this.runs] = before;
    this.after[this.runs++] = after;
  }

  get bytes() { return this.starts.length * RUN_BYTES; }
}

export class LabelMap {
  /** shape: [I, J, K]; begins empty. */
  constructor(shape) {
    const count = shape[0] * shape[1] * shape[2];
    this.shape = [...shape];
    this.voxels = new Uint8Array(count);
    this.counts = new Float64Array(256);  // voxels of each value
    this.counts[0] = count;
    this.revision = 0;
    this.oldest = ++numbers;  // of the state before the steps that can be undone
    this.locked = new Uint8Array(256);
    this.limits = null;
    this.done = [];
    this.undone = [];
    this.open = null;
    this.dirty = null;
    this.seen = 0;
  }

  /** Begins with a copy of a label map of the same shape; `rest` is awaited now and then. */
  async copy(voxels, rest) {
    this.check(voxels);
    this.counts[0] = 0;
    for (let from = 0; from < voxels.length; from += CHUNK) {
      const chunk = voxels.subarray(from, from + CHUNK);
      this.voxels.set(chunk, from);
      for (let at = 0; at < chunk.length; at++) this.counts[chunk[at]]++;
      await rest();
    }
  }

  check(voxels) {
    if (!(voxels instanceof Uint8Array)) throw new RangeError("The label has values above 255; this page takes labels from 1 to 255");
    if (voxels.length !== this.voxels.length) throw new RangeError(`The label has ${voxels.length} voxels, the image ${this.voxels.length}`);
  }

  /** Begins a step; what `put` changes until `end` is undone at once. */
  begin(words) {
    this.end();
    this.open = new Step(words);
    this.seen = 0;
  }

  /** Gives a voxel a value, unless its label is locked or its grey value lies beyond the limits. */
  put(index, value) {
    const before = this.voxels[index];
    if (before === value || this.locked[before]) return;
    const limits = this.limits;
    if (limits && !(limits.image[index] >= limits.low && limits.image[index] <= limits.high)) return;
    this.open.add(index, before, value);  // first: without a step nothing changes
    this.voxels[index] = value;
    this.counts[before]--;
    this.counts[value]++;
  }

  /** Ends the step; true where it changed anything. */
  end() {
    const step = this.open;
    this.open = null;
    if (!step) return false;
    this.note(step, this.seen);
    if (!step.runs) return false;
    step.reserve(step.runs);
    this.undone = [];
    this.done.push(step);
    this.revision++;
    this.forget();
    return true;
  }

  /** Drops the oldest steps beyond the bounds, never the last one. */
  forget() {
    let bytes = this.done.reduce((sum, step) => sum + step.bytes, 0);
    while (this.done.length > 1 && (this.done.length > MOST_STEPS || bytes > MOST_BYTES)) {
      const step = this.done.shift();
      bytes -= step.bytes;
      this.oldest = step.number;
    }
  }

  /** A number of what the label is now: by Undo it is the number of before again. */
  get state() { return this.done.at(-1)?.number ?? this.oldest; }

  /** Takes the last step back, and returns its words; "" where there is none. */
  undo() { return this.replay(this.done, this.undone, true); }

  redo() { return this.replay(this.undone, this.done, false); }

  replay(from, to, back) {
    this.end();
    const step = from.pop();
    if (!step) return "";
    this.go(step, back);
    to.push(step);
    this.revision++;
    return step.words;
  }

  /** Takes back what was put since `begin`, as if it had never been; true where that is anything. */
  drop() {
    const step = this.open;
    this.open = null;
    if (!step?.runs) return false;
    this.go(step, true);
    return true;
  }

  /** Makes a step once more, or (back) undoes it. */
  go(step, back) {
    for (let n = 0; n < step.runs; n++) {
      const run = back ? step.runs - 1 - n : n;
      const [was, is] = back ? [step.after[run], step.before[run]] : [step.before[run], step.after[run]];
      this.voxels.fill(is, step.starts[run], step.starts[run] + step.lengths[run]);
      this.counts[was] -= step.lengths[run];
      this.counts[is] += step.lengths[run];
    }
    this.note(step, 0);
  }

  /** Replaces all voxels as one step, whatever is locked. */
  replace(voxels, words) {
    this.check(voxels);
    return this.freely(words, () => { 
      for (let at = 0; at < voxels.length; at++) if (this.voxels[at] !== voxels[at]) this.put(at, voxels[at]);
    });
  }

  /** A step that neither locks nor limits hold back. */
  freely(words, work) {
    const { locked, limits } = this;
    this.locked = new Uint8Array(256);
    this.limits = null;
    this.begin(words);
    try { work(); } finally { Object.assign(this, { locked, limits }); }
    return this.end();
  }

  note(step, from) {
    const [I, J] = this.shape;
    const box = this.dirty ?? [Infinity, Infinity, Infinity, -1, -1, -1];
    for (let run = from; run < step.runs; run++) {
      const first = step.starts[run], last = first + step.lengths[run] - 1;
      const row = Math.floor(first / I), lastRow = Math.floor(last / I);
      const slice = Math.floor(row / J), lastSlice = Math.floor(lastRow / J);
      const oneRow = row === lastRow, oneSlice = slice === lastSlice;
      box[0] = Math.min(box[0], oneRow ? first - row * I : 0);
      box[3] = Math.max(box[3], oneRow ? last - row * I : I - 1);
      box[1] = Math.min(box[1], oneSlice ? row - slice * J : 0);
      box[4] = Math.max(box[4], oneSlice ? lastRow - slice * J : J - 1);
      box[2] = Math.min(box[2], slice);
      box[5] = Math.max(box[5], lastSlice);
    }
    if (step.runs > from) this.dirty = box;
  }

  /** The own box [i, j, k, i, j, k] (both ends in it) that changed since this was last asked, or null. */
  takeDirty() {
    if (this.open) {
      // The last run may still grow: it is looked at again.
      this.note(this.open, Math.max(0, this.seen - 1));
      this.seen = this.open.runs;
    }
    const box = this.dirty;
    this.dirty = null;
    return box;
  }
}
