// Islands: parts of a label that are not connected with each other by faces of voxels.
import { neighbours } from "./box.js";

/**
 * Return the labels with islands of one value set to 0.
 *
 * @param {{shape: number[], labels: Uint8Array}} box
 * @param {{value: number, smallest?: number}} options islands of fewer than `smallest` voxels go; without it all but the largest
 */
export function removeIslands({ shape, labels }, { value, smallest = 0 }) {
  const around = neighbours(shape);
  const island = new Uint32Array(labels.length), sizes = [0];
  const stack = [];
  for (let start = 0; start < labels.length; start++) {
    if (labels[start] !== value || island[start]) continue;
    const name = sizes.length;
    let size = 0;
    island[start] = name;
    stack.push(start);
    while (stack.length) {
      size++;
      around(stack.pop(), (next) => {
        if (labels[next] !== value || island[next]) return;
        island[next] = name;
        stack.push(next);
      });
    }
    sizes.push(size);
  }
  const largest = sizes.indexOf(Math.max(...sizes.slice(1)), 1);
  const stays = sizes.map((size, name) => (smallest ? size >= smallest : name === largest));
  return labels.map((label, at) => (label === value && !stays[island[at]] ? 0 : label));
}
