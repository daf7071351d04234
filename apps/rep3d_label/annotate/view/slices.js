// The slices: NiiVue draws them, one at a time, into the panes of one canvas.
//
// NiiVue is told of a box of the image's size, in shown mm; what is in it is looked up by our shader (shader.js) in textures of
// ours: values as half floats, labels as bytes. Kept so, an image takes 3 bytes a voxel on the card (NiiVue: 9 and more), a new
// window costs nothing, and one slice can be drawn without the others.

import { NVImage, Niivue } from "../niivue.js";
import { PLANES } from "../paint/grid.js";
import { SLICE_SHADER } from "./shader.js";

const UNITS = { image: 11, labels: 12, other: 13, doubt: 14, colours: 15 };  // NiiVue uses those below
const SLAB_VOXELS = 1 << 20;
const FENCED = 4;  // slabs until the card is waited for
const POLL = 4;  // ms
const MOST_HALF = 65504;
const BYTES = 2;  // NIfTI's data type
const NO_CARD = "The graphics card does not draw at the moment";

/** "" or, in words, why this browser cannot show an image of a shape. */
export function obstacle(shape = null) {
  const gl = document.createElement("canvas").getContext("webgl2");
  if (!gl) {
    return "This browser has no WebGL 2, with which images are drawn. Use a current Firefox, Chrome, Edge or Safari, and see that " +
      "hardware acceleration is not switched off in its settings.";
  }
  const most = gl.getParameter(gl.MAX_3D_TEXTURE_SIZE);
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  if (shape && Math.max(...shape) > most) {
    return `The image has ${shape.join(" x ")} voxels; this computer's graphics card takes up to ${most} along an axis. ` +
      "Open it on another computer, or in 3D Slicer. (A coarser view would hide voxels that are labelled.)";
  }
  return "";
}

export class Slices {
  constructor(canvas) {
    this.canvas = canvas;
    this.textures = {};
    this.maps = {};  // what lies over the image, as it was sent
    this.look = { low: 0, width: 1, outline: 0, doubting: 0, comparing: false };
  }

  async start() {
    // With a buffer that is kept, one pane can be drawn anew while the others stay.
    this.gl = this.canvas.getContext("webgl2", { alpha: false, antialias: false, preserveDrawingBuffer: true, powerPreference: "high-performance" });
    if (!this.gl) throw new Error(NO_CARD);
    const told = this.gl.getExtension("WEBGL_debug_renderer_info");
    this.renderer = String(this.gl.getParameter(told ? told.UNMASKED_RENDERER_WEBGL : this.gl.RENDERER));
    this.inSoftware = /swiftshader|llvmpipe|software|basic render/i.test(this.renderer);
    this.nv = new Niivue({ logLevel: "silent", isResizeCanvas: false, interactive: false, isRadiologicalConvention: true,
      sagittalNoseLeft: true, crosshairWidth: 0, isOrientationTextVisible: false, backColor: [0, 0, 0, 1] });
    await this.nv.attachToCanvas(this.canvas, false);
    this.nv.drawScene = () => {};  // panes are drawn by `draw`, when they are due
    this.nv.clearBounds = () => {};  // it would lift the scissors of `draw`, which clears what it draws
    const shown = this.nv.screenFieldOfViewExtendedVox.bind(this.nv);
    this.nv.screenFieldOfViewExtendedVox = (axCorSag) => this.view ? this.field(shown(axCorSag)) : shown(axCorSag);
    this.nv.setCustomSliceShader(SLICE_SHADER);
    this.colours(new Uint8Array(1024));
  }

  /** The part of the box that the view at hand shows, for NiiVue. */
  field({ mnMM, mxMM, rotation }) {
    const [right, up] = this.view.field;
    const low = [right[0], up[0], mnMM[2]], high = [right[1], up[1], mxMM[2]];
    return { mnMM: low, mxMM: high, rotation, fovMM: low.map((at, axis) => high[axis] - at) };
  }

  /** Sends an image's values, slab by slab so that the page stays alive. `scale` maps them to half floats. */
  async load(grid, image, labels) {
    this.grid = grid;
    this.scale = image.scale;
    const [I, J, K] = grid.shape;
    // Two voxels along each axis, so that the box begins at 0 mm.
    const [x, y, z] = grid.size.map((mm) => mm / 2);
    const affine = [x, 0, 0, x / 2, 0, y, 0, y / 2, 0, 0, z, z / 2, 0, 0, 0, 1];
    const box = await this.nv.createNiftiArray([2, 2, 2], [x, y, z], affine, BYTES, new Uint8Array(8));
    for (const volume of [...this.nv.volumes]) this.nv.removeVolume(volume);
    this.nv.addVolume(await NVImage.loadFromUrl({ url: box, name: "box.nii" }));
    const gl = this.gl;
    this.make("image", gl.R16F, grid.shape);
    this.make("labels", gl.R8UI, grid.shape);
    this.make("other", gl.R8UI, [1, 1, 1]);
    this.make("doubt", gl.R8, [1, 1, 1]);
    await this.arrived();
    if (gl.getError() === gl.OUT_OF_MEMORY) throw new RangeError("out of memory on the graphics card");
    const step = Math.max(1, Math.floor(SLAB_VOXELS / (I * J)));
    const values = new Float32Array(I * J * step);
    for (let k = 0; k < K; k += step) {
      const first = I * J * k, slab = image.data.subarray(first, first + values.length);
      for (let at = 0; at < slab.length; at++) {
        const value = (slab[at] - this.scale.zero) * this.scale.factor;
        values[at] = value > -MOST_HALF ? Math.min(value, MOST_HALF) : -MOST_HALF;  // not a number: the least
      }
      this.bind("image");
      gl.texSubImage3D(gl.TEXTURE_3D, 0, 0, 0, k, I, J, slab.length / (I * J), gl.RED, gl.FLOAT, values, 0);
      this.upload("labels", labels, [0, 0, k, I - 1, J - 1, Math.min(K, k + step) - 1]);
      // What waits for the card would hold the page up at the first picture.
      await (k % (step * FENCED) ? breath() : this.arrived());
      if (this.grid !== grid) throw new Error("The image was closed while it was being opened.");
    }
  }

  make(name, format, shape) {
    const gl = this.gl;
    gl.deleteTexture(this.textures[name]);
    this.textures[name] = gl.createTexture();
    this.bind(name);
    for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T, gl.TEXTURE_WRAP_R]) gl.texParameteri(gl.TEXTURE_3D, side, gl.CLAMP_TO_EDGE);
    const filter = name === "doubt" ? gl.LINEAR : gl.NEAREST;
    gl.texParameteri(gl.TEXTURE_3D, gl.TEXTURE_MIN_FILTER, filter);
    gl.texParameteri(gl.TEXTURE_3D, gl.TEXTURE_MAG_FILTER, filter);
    gl.texStorage3D(gl.TEXTURE_3D, 1, format, ...shape);
  }

  bind(name) {
    this.gl.activeTexture(this.gl.TEXTURE0 + UNITS[name]);
    this.gl.bindTexture(name === "colours" ? this.gl.TEXTURE_2D : this.gl.TEXTURE_3D, this.textures[name]);
  }

  /** Sends the box [i, j, k, i, j, k] (both ends in it) of a byte array in the own order. */
  upload(name, bytes, [i, j, k, i1, j1, k1]) {
    const gl = this.gl, [I, J] = this.grid.shape;
    this.bind(name);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.pixelStorei(gl.UNPACK_ROW_LENGTH, I);
    gl.pixelStorei(gl.UNPACK_IMAGE_HEIGHT, J);
    gl.texSubImage3D(gl.TEXTURE_3D, 0, i, j, k, i1 - i + 1, j1 - j + 1, k1 - k + 1, name === "doubt" ? gl.RED : gl.RED_INTEGER,
      gl.UNSIGNED_BYTE, bytes, i + I * (j + J * k));
    gl.pixelStorei(gl.UNPACK_ROW_LENGTH, 0);
    gl.pixelStorei(gl.UNPACK_IMAGE_HEIGHT, 0);
  }

  /** Another map over the image, "other" (compared) or "doubt" (uncertainty), times a factor; null for none. */
  async overlay(name, values, factor = 1) {
    const [I, J, K] = this.grid.shape;
    this.make(name, name === "doubt" ? this.gl.R8 : this.gl.R8UI, values ? this.grid.shape : [1, 1, 1]);
    const step = Math.max(1, Math.floor(SLAB_VOXELS / (I * J)));
    const bytes = this.maps[name] = values instanceof Uint8Array ? values : values && new Uint8Array(values.length);
    for (let k = 0; values && k < K; k += step) {
      const from = I * J * k, to = Math.min(values.length, from + I * J * step);
      if (bytes !== values) for (let at = from; at < to; at++) bytes[at] = factor * values[at];
      this.upload(name, bytes, [0, 0, k, I - 1, J - 1, Math.min(K, k + step) - 1]);
      await (k % (step * FENCED) ? breath() : this.arrived());
      if (!(name in this.textures)) return;  // closed meanwhile
    }
  }

  /** Colours of all labels: 256 times red, green, blue and opacity. */
  colours(rgba) {
    const gl = this.gl;
    if (!gl) return;
    this.textures.colours ??= gl.createTexture();
    this.bind("colours");
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, rgba);
  }

  /** Values between voxels' centres are drawn in between, or as blocks. */
  interpolate(smooth) {
    this.bind("image");
    const filter = smooth ? this.gl.LINEAR : this.gl.NEAREST;
    this.gl.texParameteri(this.gl.TEXTURE_3D, this.gl.TEXTURE_MIN_FILTER, filter);
    this.gl.texParameteri(this.gl.TEXTURE_3D, this.gl.TEXTURE_MAG_FILTER, filter);
  }

  /** Draws one view, in the slice at `cursor` (shown mm), or a part of it. `ratio`: pixels of the canvas for one of the stage. */
  draw(view, cursor, ratio, part = view.pane) {
    const { gl, nv, look, grid } = this;
    const scaled = (rectangle) => {
      const [left, top] = [0, 1].map((side) => Math.round(rectangle[side] * ratio));
      return [left, top, ...[0, 1].map((side) => Math.round((rectangle[side] + rectangle[side + 2]) * ratio) - [left, top][side])];
    };
    const pane = scaled(view.pane), [left, top, width, height] = scaled(part);
    gl.enable(gl.SCISSOR_TEST);
    gl.scissor(left, this.canvas.height - top - height, width, height);
    this.clear();
    const shader = nv.customSliceShader, set = shader.uniforms;
    shader.use(gl);
    for (const name of Object.keys(UNITS)) {
      this.bind(name);
      gl.uniform1i(set[name], UNITS[name]);
    }
    const own = grid.boxMatrix(), pixel = view.mmPerPixel / ratio, [right, up] = grid.axes(view.plane);
    const onePixel = (axis) => [0, 1, 2].map((row) => own[axis * 4 + row] * pixel / grid.size[axis]);
    gl.uniformMatrix4fv(set.own, false, own);
    gl.uniform3fv(set.right, onePixel(right));
    gl.uniform3fv(set.up, onePixel(up));
    gl.uniform2f(set.grey, (look.low - this.scale.zero) * this.scale.factor, 1 / (look.width * this.scale.factor));
    gl.uniform1f(set.outline, look.outline);
    gl.uniform1f(set.comparing, look.comparing ? 1 : 0);
    gl.uniform1f(set.doubting, look.doubting);
    nv.scene.crosshairPos = cursor.map((mm, axis) => mm / grid.size[axis]);
    nv.screenSlices = [];
    this.view = view;
    nv.draw2DMain(pane, PLANES.indexOf(view.plane));
    this.view = null;
    gl.disable(gl.SCISSOR_TEST);
  }

  /** Resolves when the card has done all that it was told; the page stays alive meanwhile. */
  async arrived() {
    const { gl } = this, fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
    do await new Promise((done) => { setTimeout(done, POLL); });
    while (!gl.isContextLost() && gl.getSyncParameter(fence, gl.SYNC_STATUS) !== gl.SIGNALED);
    gl.deleteSync(fence);
  }

  /** Waits for the card, and holds the page up: for measuring. */
  finish() { this.gl.readPixels(0, 0, 1, 1, this.gl.RGBA, this.gl.UNSIGNED_BYTE, new Uint8Array(4)); }

  close() {
    this.grid = null;
    const { gl } = this;
    if (!gl) return;
    for (const name of ["image", "labels", "other", "doubt"]) {
      gl.deleteTexture(this.textures[name]);
      delete this.textures[name];
    }
    this.maps = {};
    this.clear();
  }

  clear() {
    this.gl.clearColor(0, 0, 0, 1);
    this.gl.clear(this.gl.COLOR_BUFFER_BIT | this.gl.DEPTH_BUFFER_BIT);
  }
}

/** Lets the page do what waits. */
export const breath = () => new Promise((done) => {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => { port1.close(); done(); };
  port2.postMessage(0);
});
