// What takes longer than a moment is done here, beside the page.

import { fillBetween } from "./between.js";
import { growCut } from "./grow.js";
import { removeIslands } from "./islands.js";
import { smooth } from "./smooth.js";

const WORK = { fillBetween, growCut, removeIslands, smooth };

self.addEventListener("message", ({ data: { work, box, options } }) => {
  try {
    const labels = WORK[work](box, options);
    self.postMessage({ labels }, [labels.buffer]);
  } catch (error) {
    self.postMessage({ error: error instanceof RangeError ? "there is not enough memory for it" : String(error.message ?? error) });
  }
});
