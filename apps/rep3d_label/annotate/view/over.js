// What lies above the slices: letters of the patient's sides, the crosshair, a contour in the making.

const GAP = 8;
const NARROW = 300;  // pixels of a view: the letter on top goes below the view's name

/** context: of a canvas over the whole stage; screen: its panes, views and cursor, and in `decoration` what is to be shown. */
export function drawOver(context, screen) {
  const { width, height } = context.canvas, { ratio, decoration } = screen;
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, width, height);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.font = "600 12px system-ui, sans-serif";
  context.textBaseline = "middle";
  for (const plane of screen.shown) {
    const view = screen.views[plane];
    context.save();
    context.beginPath();
    context.rect(...view.pane);
    context.clip();
    if (decoration.crosshair !== false) crosshair(context, view.toPixel(screen.cursor), view.pane);
    words(context, screen, view);
    if (decoration.path?.plane === plane) path(context, decoration.path.points);
    context.restore();
  }
}

function crosshair(context, [x, y], [left, top, width, height]) {
  context.strokeStyle = "#7fd3ffb0";
  context.lineWidth = 1;
  context.beginPath();
  const [column, row] = [Math.round(x) + 0.5, Math.round(y) + 0.5];
  context.moveTo(column, top); context.lineTo(column, row - GAP);
  context.moveTo(column, row + GAP); context.lineTo(column, top + height);
  context.moveTo(left, row); context.lineTo(column - GAP, row);
  context.moveTo(column + GAP, row); context.lineTo(left + width, row);
  context.stroke();
}

function words(context, screen, view) {
  const [left, top, width, height] = view.pane, letters = screen.grid.letters(view.plane);
  const say = (text, x, y, align) => {
    context.textAlign = align;
    context.lineWidth = 3;
    context.strokeStyle = "#000c";
    context.strokeText(text, x, y);
    context.fillStyle = "#ffe08a";
    context.fillText(text, x, y);
  };
  say(letters.left, left + 6, top + height / 2, "left");
  say(letters.right, left + width - 6, top + height / 2, "right");
  say(letters.top, left + width / 2, top + (width < NARROW ? 27 : 11), "center");
  say(letters.bottom, left + width / 2, top + height - 11, "center");
  const name = view.plane[0].toUpperCase() + view.plane.slice(1);
  say(`${name} ${screen.sliceOf(view.plane) + 1} of ${screen.grid.depth(view.plane)}`, left + 6, top + 11, "left");
}

function path(context, points) {
  context.lineWidth = 2;
  context.strokeStyle = "#fff";
  context.setLineDash([5, 3]);
  context.beginPath();
  for (const [x, y] of points) context.lineTo(x, y);
  context.stroke();
  context.setLineDash([]);
}
