// What can be done with the viewer, by name: buttons and keys call the same.

import { PLANES } from "../paint/grid.js";
import { openHelp } from "./help.js";
import { SIZES } from "./settings.js";

const LAYOUTS = ["three", ...PLANES];

/** Return {name: function}; a function does nothing where there is nothing to do. */
export function commandsOf(stage) {
  const { settings, screen } = stage;
  const opened = (work) => () => { if (stage.isOpen) work(); };
  const through = (list, value, step) => list[(list.indexOf(value) + step + list.length) % list.length];
  const sized = (step) => () => {
    const near = SIZES.findIndex((size) => size >= settings.get("size"));
    settings.set("size", SIZES[Math.min(SIZES.length - 1, Math.max(0, (near < 0 ? SIZES.length - 1 : near) + step))]);
  };
  const label = (step) => opened(() => {
    const values = stage.entries.map(({ value }) => value);
    if (values.length) settings.set("value", through(values, settings.get("value"), step));
  });
  const scrolled = (steps) => opened(() => screen.scroll(stage.plane, steps));
  const zoomed = (factor) => opened(() => {
    const view = screen.views[stage.plane], [left, top, width, height] = view.pane;
    view.zoomAt(left + width / 2, top + height / 2, factor);
    screen.draw(stage.plane);
  });
  const fainter = (by) => () => settings.set("opacity", Math.round(10 * Math.min(1, Math.max(0, settings.get("opacity") + by))) / 10);
  const tool = (name) => [`tool.${name}`, () => settings.set("tool", name)];
  return Object.fromEntries([
    ...["move", "brush", "eraser", "contour", "fill"].map(tool),
    ["fill.everywhere", () => settings.toggle("everywhere")],
    ["size.less", sized(-1)],
    ["size.more", sized(1)],
    ["ball", () => settings.toggle("ball")],
    ["limit", () => settings.toggle("limited")],
    ["undo", () => stage.undo()],
    ["redo", () => stage.redo()],
    ["label.previous", label(-1)],
    ["label.next", label(1)],
    ["label.show", opened(() => stage.hide(settings.get("value")))],
    ["label.lock", opened(() => stage.lock(settings.get("value")))],
    ["label.lockOthers", opened(() => stage.lockOthers())],
    ["labels.show", opened(() => stage.hideAll())],
    ["between", opened(() => stage.regions.between())],
    ["grow", opened(() => stage.regions.grow())],
    ["smooth", opened(() => stage.regions.smooth())],
    ["islands.largest", opened(() => stage.regions.islands(true))],
    ["islands.small", opened(() => stage.regions.islands(false))],
    ["slice.up", scrolled(1)],
    ["slice.down", scrolled(-1)],
    ["slice.up10", scrolled(10)],
    ["slice.down10", scrolled(-10)],
    ["zoom.in", zoomed(1.25)],
    ["zoom.out", zoomed(0.8)],
    ["fit", opened(() => { for (const plane of PLANES) screen.views[plane].centre(); screen.draw(); })],
    ["layout", () => settings.set("layout", through(LAYOUTS, settings.get("layout"), 1))],
    ["solid", () => settings.toggle("solid")],
    ["window.next", opened(() => stage.nextWindow())],
    ["interpolate", () => settings.toggle("smooth")],
    ["crosshair", () => settings.toggle("crosshair")],
    ["opacity.less", fainter(-0.1)],
    ["opacity.more", fainter(0.1)],
    ["outline", () => settings.set("outline", (settings.get("outline") + 1) % 3)],
    ["doubt.next", opened(() => stage.nextDoubt(1))],
    ["doubt.previous", opened(() => stage.nextDoubt(-1))],
    ["doubt.show", () => settings.set("doubting", settings.get("doubting") ? 0 : 0.6)],
    ["compare.show", () => settings.toggle("comparing")],
    ["help", openHelp],
  ]);
}
