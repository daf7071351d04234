// Values of a label that no label of the model stands for: from another program, or from before the model's labels changed.

/**
 * @param {Uint8Array} label
 * @param {Array<{value: number}>} entries the model's labels.
 * @returns {number[]} the values in the label that none of them has, without 0.
 */
export function strangers(label, entries) {
  const there = new Uint8Array(256);
  for (const value of label) there[value] = 1;
  for (const { value } of [{ value: 0 }, ...entries]) there[value] = 0;
  return [...there.keys()].filter((value) => there[value]);
}

/** "the value 7", "the values 7, 9". */
export const namesOf = (values) => `the value${values.length > 1 ? "s" : ""} ${values.join(", ")}`;
