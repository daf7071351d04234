// Line charts as SVG. Only measured values are drawn; a gap stays a gap.
import { dice, h, mean } from "./dom.js";

const LEFT = 38, RIGHT = 14, TOP = 12, BOTTOM = 30;

function frame(width, height, low, high, steps, words) {
  const y = (value) => TOP + (height - TOP - BOTTOM) * (1 - (value - low) / (high - low || 1));
  const lines = [];
  for (let i = 0; i <= steps; i++) {
    const value = low + ((high - low) * i) / steps;
    lines.push(h("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
      h("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, words(value)));
  }
  return { y, lines };
}

/** The path through the points that have a value; a missing one interrupts it. */
function path(points) {
  let pen = "M", text = "";
  for (const [x, y] of points) {
    if (y === null) { pen = "M"; continue; }
    text += `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
    pen = "L";
  }
  return text;
}

/** A lower end for Dice that leaves the differences visible. */
function lowerEnd(values) {
  const least = Math.min(1, ...values);
  return values.length === 0 || least < 0.55 ? 0 : least < 0.8 ? 0.5 : 0.75;
}

/**
 * Dice over versions, the mean and each label.
 * versions: oldest first, each {version, labels (how many it learned from), scores, mean, published, current}.
 */
export function learningCurve(versions, byLabels, colours, width) {
  const height = Math.max(230, Math.min(360, width * 0.5));
  const names = [...new Set(versions.flatMap((v) => Object.keys(v.scores || {})))];
  const measured = versions.flatMap((v) => [v.mean, ...Object.values(v.scores || {})]).filter((x) => typeof x === "number");
  const { y, lines } = frame(width, height, lowerEnd(measured), 1, 5, (v) => v.toFixed(2));
  const counts = versions.map((v) => v.labels ?? 0);
  const [first, last] = [Math.min(...counts), Math.max(...counts)];
  const inner = width - LEFT - RIGHT - 36;
  const place = (v, i) => LEFT + 18 + (byLabels
    ? (last > first ? ((v.labels - first) / (last - first)) * inner : inner / 2)
    : (versions.length > 1 ? (i / (versions.length - 1)) * inner : inner / 2));
  const curve = (get) => path(versions.map((v, i) => [place(v, i), typeof get(v) === "number" ? y(get(v)) : null]));
  const marks = versions.map((v, i) => {
    const x = place(v, i);
    const parts = Object.entries(v.scores || {}).map(([name, value]) => `${name} ${dice(value)}`).join("\n");
    const fate = v.current ? "published now" : v.published ? "was published" : "not published";
    const words = `${v.version}: ${v.mean === null ? "not measured" : `mean Dice ${dice(v.mean)}`}, from ${v.labels} labels, ${fate}\n${parts}`;
    if (v.mean === null) {
      const base = height - BOTTOM - 7;
      return h("g", {}, h("title", {}, words), h("path", { class: "none", d: `M${x - 4} ${base - 4}l8 8m0 -8l-8 8` }));
    }
    return h("g", {}, h("title", {}, words),
      h("circle", { cx: x, cy: y(v.mean), r: 4.5, class: v.published ? "was" : "kept" }),
      v.current && h("circle", { cx: x, cy: y(v.mean), r: 8.5, class: "now" }));
  });
  const every = Math.ceil(versions.length / Math.max(2, Math.floor(inner / 46)));
  let taken = -Infinity;
  const ticks = versions.map((v, i) => {
    const x = place(v, i);
    if (x - taken < 28 || (!byLabels && i % every && !v.current)) return null;
    taken = x;
    const text = byLabels ? String(v.labels) : v.version;
    return h("text", { x, y: height - 9, "text-anchor": "middle", class: v.current && !byLabels ? "strong" : null }, text);
  });
  const now = versions.find((v) => v.current);
  const summary = `Learning curve over ${versions.length} versions. ${now ? `Published: ${now.version}, ${
    now.mean === null ? "not measured" : `mean Dice ${dice(now.mean)}`}.` : "None is published."}`;
  return h("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": summary }, lines, ticks,
    names.length > 1 && names.map((name) => h("path", { class: "label", "--line-colour": lineColour(colours[name]), d: curve((v) => v.scores?.[name]) },
      h("title", {}, name))),
    h("path", { class: "mean", d: curve((v) => v.mean) }), marks);
}

/** A label's colour, drawn towards the text's so that a pale one is seen on white and a dark one on black. */
const lineColour = (colour) => `color-mix(in oklab, ${colour || "#8a93a3"} 72%, var(--ink))`;

/** What the marks mean; only those that occur. */
export function curveKey(versions, names, colours) {
  const sign = (child) => h("svg", { viewBox: "0 0 22 14", "aria-hidden": "true" }, child);
  const has = (test) => versions.some(test);
  const dot = (kind, r = 4) => h("circle", { cx: 11, cy: 7, r, class: kind });
  return h("ul", { class: "key" },
    h("li", {}, sign(h("path", { class: "mean", d: "M0 7H22" })), "mean"),
    names.length > 1 && names.map((name) =>
      h("li", {}, sign(h("path", { class: "label", "--line-colour": lineColour(colours[name]), d: "M0 7H22" })), name)),
    has((v) => v.current) && h("li", {}, sign([dot("was", 3), dot("now", 6)]), "published now"),
    has((v) => v.published && !v.current) && h("li", {}, sign(dot("was")), "was published"),
    has((v) => !v.published) && h("li", {}, sign(dot("kept")), "kept, not published"),
    has((v) => v.mean === null) && h("li", {}, sign(h("path", { class: "none", d: "M7 3l8 8m0 -8l-8 8" })), "not measured"));
}

/** Loss over iterations: points [[iteration, loss], ...]. */
export function lossCurve(points, width) {
  const height = 130;
  const losses = points.map(([, loss]) => loss);
  const high = Math.max(...losses) * 1.05;
  const low = Math.min(0, ...losses);
  const { y, lines } = frame(width, height, low, high, 2, (v) => v.toFixed(high < 0.1 ? 3 : 2));
  const [from, to] = [points[0][0], points[points.length - 1][0]];
  const x = (iteration) => LEFT + ((width - LEFT - RIGHT) * (iteration - from)) / (to - from || 1);
  return h("svg", { viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `Loss from ${losses[0].toFixed(3)} to ${losses[losses.length - 1].toFixed(3)}` }, lines,
  h("path", { class: "mean", d: path(points.map(([iteration, loss]) => [x(iteration), y(loss)])) }),
  h("text", { x: LEFT, y: height - 9 }, String(from)),
  h("text", { x: width - RIGHT, y: height - 9, "text-anchor": "end" }, `iteration ${to}`));
}

export const meanDice = (scores) => mean(Object.values(scores || {}));
