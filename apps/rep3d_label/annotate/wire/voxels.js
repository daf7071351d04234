// Voxels as they go over the wire: one line of JSON, then the bytes of one array after the other, the first index
// running fastest. lib/storage/voxels.py of the server describes the form.
import { crc32 } from "./crc32.js";

export const MEDIA_TYPE = "application/x-rep3d-voxels";
const LONGEST_LINE = 1 << 20;
const TYPES = {
  u1: Uint8Array, i1: Int8Array, u2: Uint16Array, i2: Int16Array, u4: Uint32Array, i4: Int32Array, u8: BigUint64Array,
  i8: BigInt64Array, f4: Float32Array, f8: Float64Array,
};

/** What came is no such thing, or was damaged on its way. */
export class Damaged extends Error {}
/** There is not enough memory in the browser. */
export class TooLarge extends Error {}

const noVoxels = () => new Damaged("The answer holds no voxels. Reload the page: it and the server may be of different releases.");

export const megabytes = (bytes) => `${Math.max(1, Math.round(bytes / 1e6)).toLocaleString("en")} MB`;

/**
 * Reads voxels block by block.
 * @param {AsyncIterable<Uint8Array>} blocks of an answer's body.
 * @param {(done: number, total: number) => void} tell called with bytes that came.
 * @returns shape [I, J, K], affine 4 x 4 (RAS in mm), params, arrays by name, and the first one's checksum. Throws Damaged or TooLarge.
 */
export async function read(blocks, tell = () => {}) {
  let head = new Uint8Array(0), about = null, buffers = [], number = 0, at = 0, done = 0, total = 0;
  const take = (block) => {
    let from = 0;
    while (from < block.length) {
      if (number === buffers.length) throw new Damaged(`More than the announced ${total} bytes of voxels came.`);
      const into = buffers[number], count = Math.min(into.length - at, block.length - from);
      into.set(block.subarray(from, from + count), at);
      [from, at, done] = [from + count, at + count, done + count];
      if (at === into.length) [number, at] = [number + 1, 0];
    }
    tell(done, total);
  };
  for await (const block of blocks) {
    if (about) {
      take(block);
      continue;
    }
    head = joined(head, block);
    const end = head.indexOf(10);
    if (end < 0) {
      if (head.length > LONGEST_LINE) throw noVoxels();
      continue;
    }
    about = firstLine(head.subarray(0, end));
    total = about.arrays.reduce((sum, array) => sum + array.bytes, 0);
    buffers = about.arrays.map((array) => room(array.bytes));
    take(head.slice(end + 1));
  }
  if (!about) throw noVoxels();
  if (done !== total) throw new Damaged(`The voxels are cut: ${done} of ${total} bytes came. Try again.`);
  const arrays = {};
  about.arrays.forEach((array, place) => {
    if (crc32(buffers[place]) !== array.crc32) throw new Damaged("The voxels were damaged on their way: their checksum is wrong. Try again.");
    arrays[array.name] = typed(buffers[place].buffer, array.dtype);
    buffers[place] = null;
  });
  return { shape: about.shape, affine: about.affine, params: about.params ?? {}, arrays, crc32: about.arrays[0].crc32 };
}

function joined(one, two) {
  const both = new Uint8Array(one.length + two.length);
  both.set(one);
  both.set(two, one.length);
  return both;
}

function room(bytes) {
  try {
    return new Uint8Array(bytes);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new TooLarge(`This browser has no room for ${megabytes(bytes)} of voxels. Close other tabs, or work on this case in 3D Slicer.`);
  }
}

function firstLine(bytes) {
  try {
    const about = JSON.parse(new TextDecoder().decode(bytes));
    const voxels = about.shape.reduce((product, length) => product * length, 1);
    const fits = (array) => array.bytes === voxels * TYPES[array.dtype.slice(1)].BYTES_PER_ELEMENT;
    const square = about.affine.length === 4 && about.affine.every((row) => row.length === 4 && row.every(Number.isFinite));
    if (about.shape.length !== 3 || !(voxels >= 1) || !square || !about.arrays.every(fits)) throw noVoxels();
    return about;
  } catch (error) {
    throw error instanceof Damaged ? error : noVoxels();
  }
}

/** Numbers of 64 bits as floats: what draws, and what counts, knows no others. */
function typed(buffer, dtype) {
  const array = new TYPES[dtype.slice(1)](buffer);
  return dtype.endsWith("8") ? Float32Array.from(array, Number) : array;
}

/** The blob to send for one array of bytes (a Uint8Array), compressed. */
export async function pack(name, bytes, shape, affine, params) {
  const array = { name, dtype: "|u1", bytes: bytes.length, crc32: crc32(bytes) };
  return gzip(new Blob([`${JSON.stringify({ shape, affine, arrays: [array], params })}\n`, bytes]));
}

export const gzip = (blob) => new Response(blob.stream().pipeThrough(new CompressionStream("gzip"))).blob();

export const gunzip = async (blob) =>
  new Uint8Array(await new Response(blob.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());

/** A label map as one byte a voxel. Throws Damaged for values beyond 255, which the page cannot draw. */
export function asLabel(array) {
  if (array instanceof Uint8Array) return array;
  const label = new Uint8Array(array.length);
  for (let place = 0; place < array.length; place++) {
    const value = array[place];
    if (!(value >= 0 && value <= 255)) throw new Damaged(`The label has the value ${value}; this page draws values up to 255. Work on this case in 3D Slicer.`);
    label[place] = value;
  }
  return label;
}

/** An uncertainty map as numbers of 32 bits. */
export const asFloats = (array) => (array instanceof Float32Array ? array : Float32Array.from(array));
