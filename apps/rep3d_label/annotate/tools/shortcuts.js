// All keys of the page, in one table: the help sheet is drawn from it, and keys are looked up in it.

// name: of the command; key: what is held, and KeyboardEvent.key; words: what it does; whose: "flow" where the flow does it.
export const KEYS = [
  ["Tools", [
    ["tool.move", "V", "Move the crosshair"],
    ["tool.brush", "B", "Brush (with Shift held: erase)"],
    ["tool.eraser", "E", "Eraser"],
    ["tool.contour", "C", "Contour: draw around, the inside is filled"],
    ["tool.fill", "F", "Fill what is connected and looks alike"],
    ["fill.everywhere", "Shift+F", "Fill through all slices"],
    ["size.less", "[", "Smaller brush"],
    ["size.more", "]", "Larger brush"],
    ["ball", "D", "Brush as a ball, through neighbouring slices"],
    ["limit", "T", "Paint only within the limits of grey value"],
    ["undo", "Ctrl+Z", "Undo"],
    ["redo", "Ctrl+Shift+Z", "Redo (also Ctrl+Y)"],
    ["redo", "Ctrl+Y", ""],
  ]],
  ["Label in hand", [
    ["label.previous", ",", "Previous label"],
    ["label.next", ".", "Next label"],
    ["label.show", "H", "Hide or show it"],
    ["label.lock", "L", "Lock or unlock it: what is locked cannot be painted over"],
    ["label.lockOthers", "Shift+L", "Lock all others, or none"],
    ["between", "Shift+B", "Fill between slices"],
    ["grow", "Shift+G", "Grow all labels from what was painted"],
    ["smooth", "Shift+M", "Smooth it"],
    ["islands.largest", "Shift+K", "Keep its largest part only"],
    ["islands.small", "Shift+I", "Remove its small parts"],
  ]],
  ["Looking", [
    ["slice.up", "ArrowUp", "Next slice (or the wheel)"],
    ["slice.down", "ArrowDown", "Previous slice"],
    ["slice.up10", "PageUp", "Ten slices on"],
    ["slice.down10", "PageDown", "Ten slices back"],
    ["zoom.in", "+", "Zoom in (or Ctrl and the wheel)"],
    ["zoom.out", "-", "Zoom out"],
    ["fit", "R", "Show all of the image again"],
    ["layout", "X", "Three views, or one large: axial, coronal, sagittal"],
    ["solid", "Shift+X", "3D view"],
    ["window.next", "P", "Next window (or drag with the right button)"],
    ["interpolate", "I", "Smooth or sharp voxels"],
    ["crosshair", "Shift+C", "Crosshair"],
    ["opacity.less", "O", "Labels fainter"],
    ["opacity.more", "Shift+O", "Labels stronger"],
    ["outline", "K", "Labels filled, with outline, outline alone"],
    ["labels.show", "Shift+H", "Hide or show all labels"],
    ["doubt.next", "U", "Next uncertain place"],
    ["doubt.previous", "Shift+U", "Previous uncertain place"],
    ["doubt.show", "Y", "Hide or show the uncertainty"],
    ["compare.show", "M", "Hide or show what is compared"],
  ]],
  ["Case", [
    ["next", "Shift+N", "Next sample", "flow"],
    ["auto_segment", "Shift+A", "Auto-segment", "flow"],
    ["submit", "Ctrl+Enter", "Submit", "flow"],
    ["cases", "Q", "All cases", "flow"],
    ["cancel", "Shift+Q", "Cancel what runs", "flow"],
    ["help", "?", "This sheet"],
  ]],
].flatMap(([group, rows]) => rows.map(([name, key, words, whose = "stage"]) => ({ group, name, key, words, whose })));

/** How a key is said in the table: "Ctrl+Shift+Z". On a Mac the command key counts as Ctrl. */
function said(event) {
  const key = event.key.length === 1 ? event.key.toUpperCase() : event.key;
  const letter = /^[A-Z]$/.test(key);
  // What is typed with Shift, as "?" or "+", is on another key elsewhere: only letters and named keys are said with it.
  const shift = event.shiftKey && (letter || event.key.length > 1);
  return `${event.ctrlKey || event.metaKey ? "Ctrl+" : ""}${shift ? "Shift+" : ""}${key}`;
}

/** Whether keys belong to what has the focus: to text, to a slider or a list. */
function taken(event) {
  const element = event.target;
  if (document.querySelector("dialog[open]") || !(element instanceof Element)) return true;
  if (element.matches("textarea, select, [contenteditable], input:not([type=range], [type=checkbox], [type=radio])")) return true;
  return element.matches("input[type=range], input[type=radio]") && /^(Arrow|Page|Home|End)/.test(event.key);
}

/** Calls `run(name, whose)` for each key of the table that is pressed, and `digit(n)` for 1 to 9; both return whether they did it. */
export function listen(run, digit) {
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.isComposing || taken(event)) return;
    const key = said(event), row = KEYS.find((known) => known.key === key);
    if (row ? run(row.name, row.whose) : /^[1-9]$/.test(key) && digit(Number(key))) event.preventDefault();
  });
}

export const keyOf = (name) => KEYS.find((row) => row.name === name)?.key ?? "";
