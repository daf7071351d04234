// The mouse, a pen or fingers on the slices: painting with the tool in hand, scrolling, zoom, pan, window, crosshair.

import { stroke } from "../paint/brush.js";
import { MOST_FLOODED, fillPolygon, flood } from "../paint/fill.js";

const NOTCH = 60;  // what a wheel's delta adds up to for one slice

export class Hand {
  /** stage: gives `screen`, `settings`, `map`, `grid`, `image`, `mayPaint` and `edited`. */
  constructor(stage) {
    this.stage = stage;
    this.gesture = null;
    this.pointers = new Map();
    this.wheel = 0;
    const surface = stage.screen.over;
    surface.addEventListener("pointerdown", (event) => this.down(event));
    surface.addEventListener("pointermove", (event) => this.move(event));
    surface.addEventListener("pointerup", (event) => this.up(event));
    surface.addEventListener("pointercancel", (event) => {
      this.rest();
      this.up(event);
    });
    stage.screen.addEventListener("placed", () => this.rest());  // the same pixel is another place now
    surface.addEventListener("pointerleave", () => this.hover(null));
    surface.addEventListener("wheel", (event) => this.turn(event), { passive: false });
    surface.addEventListener("dblclick", (event) => this.enlarge(event));
    surface.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  get busy() { return this.gesture !== null; }

  place(event) {
    const { left, top } = this.stage.screen.over.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  }

  down(event) {
    const { screen, settings } = this.stage;
    if (!screen.grid) return;
    screen.over.focus({ preventScroll: true });
    const [x, y] = this.place(event);
    if (event.isPrimary) this.pointers.clear();  // of one whose end was not seen
    this.pointers.set(event.pointerId, [x, y]);
    if (this.pointers.size === 2) return this.pinch();
    const view = screen.viewAt(x, y);
    if (this.gesture || !view) return;
    this.stage.plane = view.plane;
    try { screen.over.setPointerCapture(event.pointerId); } catch { /* a pointer that has gone again */ }
    const tool = settings.get("tool");
    const kind = event.button === 2 ? "window" : event.button === 1 || (event.button === 0 && event.altKey) ? "pan"
      : event.button !== 0 ? "" : event.ctrlKey || event.metaKey || tool === "move" ? "move" : tool;
    const start = { kind, view, x, y, erase: event.shiftKey };
    this.gesture = kind && this[`${kind}Start`](start) !== false ? start : null;
    event.preventDefault();
  }

  move(event) {
    const [x, y] = this.place(event);
    const { gesture, pointers } = this;
    if (pointers.has(event.pointerId)) pointers.set(event.pointerId, [x, y]);
    if (!this.stage.screen.grid) return;
    if (gesture) {
      this[`${gesture.kind}Move`](gesture, x, y);
      [gesture.x, gesture.y] = [x, y];
    }
    this.hover([x, y]);
  }

  up(event) {
    this.pointers.delete(event.pointerId);
    const { gesture } = this;
    this.gesture = null;
    if (gesture && this.stage.screen.grid) this[`${gesture.kind}End`]?.(gesture);
  }

  /** Ends what the hand is doing: a stroke stays as far as it was drawn; what comes at the end only does not come. */
  rest() {
    const { gesture, stage } = this;
    this.gesture = null;
    if (!gesture || !stage.isOpen) return;
    stage.screen.decorate({ path: null });
    if (!["contour", "fill"].includes(gesture.kind)) this[`${gesture.kind}End`]?.(gesture);
  }

  /** Shows the brush's ring where the mouse is. */
  hover(place) {
    const { screen, settings, grid } = this.stage;
    if (!screen.grid) return;
    const view = place && screen.viewAt(...place);
    if (view) this.stage.plane = view.plane;
    const painting = ["brush", "eraser"].includes(settings.get("tool"));
    const voxel = view ? Math.min(...grid.axes(view.plane).slice(0, 2).map((axis) => grid.shownSpacing[axis])) / 2 : 0;
    screen.showRing(view && painting ? place : null, view && Math.max(voxel, settings.get("size") / 2) / view.mmPerPixel);
    screen.over.dataset.tool = settings.get("tool");
  }

  // Painting -----------------------------------------------------------------------------------------------------------

  /** Own place of a pixel in the slice that a view shows. */
  own(view, x, y) { return this.stage.grid.toOwn(view.toShown(x, y, this.stage.screen.cursor)); }

  brushStart(gesture) { return this.begin(gesture, gesture.erase ? "Erase" : "Paint"); }
  eraserStart(gesture) { return this.begin(gesture, "Erase"); }

  begin(gesture, words) {
    const { stage } = this;
    if (!stage.mayPaint()) return false;
    gesture.value = words === "Erase" ? 0 : stage.settings.get("value");
    gesture.flat = stage.settings.get("ball") ? -1 : stage.grid.slice(gesture.view.plane, 0).axis;
    stage.map.begin(words);
    this.dab(gesture, gesture.x, gesture.y);
    return true;
  }

  dab(gesture, x, y) {
    const { map, grid, settings, screen } = this.stage;
    stroke(grid.shape, grid.spacing, this.own(gesture.view, gesture.x, gesture.y), this.own(gesture.view, x, y),
      settings.get("size") / 2, gesture.flat, (index) => map.put(index, gesture.value));
    screen.changed(map.voxels, map.takeDirty(), gesture.view.plane);
    this.stage.table.measure();
  }

  brushMove(gesture, x, y) { this.dab(gesture, x, y); }
  eraserMove(gesture, x, y) { this.dab(gesture, x, y); }
  brushEnd() { this.stage.edited(this.stage.map.end()); }
  eraserEnd() { this.brushEnd(); }

  contourStart(gesture) {
    gesture.points = [[gesture.x, gesture.y]];
    return this.stage.mayPaint();
  }

  contourMove(gesture, x, y) {
    gesture.points.push([x, y]);
    const { screen } = this.stage;
    screen.decorate({ path: { plane: gesture.view.plane, points: gesture.points } });
  }

  contourEnd(gesture) {
    const { stage } = this, { map, grid, screen } = stage;
    screen.decorate({ path: null });
    map.begin(gesture.erase ? "Erase inside a contour" : "Contour");
    const value = gesture.erase ? 0 : stage.settings.get("value");
    fillPolygon(grid.shape, grid.slice(gesture.view.plane, 0).axis, gesture.points.map(([x, y]) => this.own(gesture.view, x, y)),
      (index) => map.put(index, value));
    stage.edited(map.end());
  }

  fillStart(gesture) {
    gesture.own = this.own(gesture.view, gesture.x, gesture.y).map(Math.round);
    return this.stage.mayPaint() && this.stage.grid.holds(gesture.own);
  }

  fillMove() {}

  /** At the end: the first of two fingers fills nothing. */
  fillEnd(gesture) {
    const { stage } = this, { map, grid, settings } = stage, { own } = gesture;
    const reach = settings.get("tolerance") * settings.get("window")[1];
    const flat = settings.get("everywhere") ? -1 : grid.slice(gesture.view.plane, 0).axis;
    const value = gesture.erase ? 0 : settings.get("value");
    const found = flood(grid.shape, own, flat, map.voxels, stage.image.data, reach, gesture.erase);
    if (found) {
      map.begin(gesture.erase ? "Erase a region" : "Fill");
      for (const index of found) map.put(index, value);
      stage.edited(map.end());
    } else {
      stage.say(`Not filled: more than ${MOST_FLOODED / 1e6} million voxels are alike. Lower the likeness, or fill one slice.`);
    }
  }

  // Looking ------------------------------------------------------------------------------------------------------------

  moveStart(gesture) { this.moveMove(gesture, gesture.x, gesture.y); }

  moveMove(gesture, x, y) {
    const { screen } = this.stage;
    screen.setCursor(gesture.view.toShown(x, y, screen.cursor));
  }

  panStart() {}

  panMove(gesture, x, y) {
    gesture.view.pan(x - gesture.x, y - gesture.y);
    this.stage.screen.draw(gesture.view.plane);
  }

  windowStart(gesture) { gesture.window = this.stage.settings.get("window"); }

  windowMove(gesture, x, y) {
    const { settings, screen } = this.stage;
    const [low, width] = settings.get("window");
    const [, , paneWidth, paneHeight] = gesture.view.pane;
    // Across: how wide; upwards: how bright. A whole pane is a factor of e squared, or the whole width.
    const wider = width * Math.exp(2 * (x - gesture.x) / paneWidth);
    const centre = low + width / 2 + width * (y - gesture.y) / paneHeight;
    screen.only = [gesture.view.plane];
    settings.set("window", [centre - wider / 2, wider]);
    screen.only = [];
  }

  windowEnd() { this.stage.screen.draw(); }

  /** Two fingers: what was begun with the first is taken back; the two move and zoom. */
  pinch() {
    const { gesture, stage } = this;
    if (gesture && stage.map.drop()) {
      stage.screen.changed(stage.map.voxels, stage.map.takeDirty());
      stage.table.measure();
    }
    stage.screen.decorate({ path: null });
    const [[x, y]] = [...this.pointers.values()];
    const view = stage.screen.viewAt(x, y);
    this.gesture = view && { kind: "pinch", view, x, y, ...this.span() };
  }

  span() {
    const [a, b] = [...this.pointers.values()];
    return { middle: [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2], apart: Math.hypot(a[0] - b[0], a[1] - b[1]) };
  }

  pinchMove(gesture) {
    if (this.pointers.size < 2) return;
    const now = this.span();
    gesture.view.pan(now.middle[0] - gesture.middle[0], now.middle[1] - gesture.middle[1]);
    gesture.view.zoomAt(...now.middle, now.apart / Math.max(1, gesture.apart));
    Object.assign(gesture, now);
    this.stage.screen.draw(gesture.view.plane);
  }

  turn(event) {
    const { screen } = this.stage;
    if (!screen.grid) return;
    const [x, y] = this.place(event), view = screen.viewAt(x, y);
    if (!view) return;
    event.preventDefault();
    if (event.ctrlKey || event.metaKey) {
      view.zoomAt(x, y, Math.exp(-event.deltaY / 400));
      screen.draw(view.plane);
      return;
    }
    this.wheel += event.deltaMode === 1 ? event.deltaY * 40 : event.deltaY;
    const steps = Math.trunc(this.wheel / NOTCH);
    this.wheel -= steps * NOTCH;
    if (steps && !this.gesture) screen.scroll(view.plane, steps > 0 ? -1 : 1);
  }

  enlarge(event) {
    const { screen, settings } = this.stage;
    const view = screen.grid && settings.get("tool") === "move" && screen.viewAt(...this.place(event));
    if (view) settings.set("layout", settings.get("layout") === "three" ? view.plane : "three");
  }
}
