// All cases with their states, to be searched and opened.
import { STATES } from "../../cases.js";
import { fill, h, number, when } from "../../dom.js";
import { wordsOf } from "../flow/foreground.js";
import { sheet } from "../flow/question.js";

const MOST = 200;

/**
 * Shows the list.
 * @param {() => Promise<object[]>} read asks the server for the cases.
 * @param {(id: string) => void} open called with the one that is chosen.
 */
export async function showList(read, open) {
  const find = h("input", { type: "search", placeholder: "Find a case", "aria-label": "Find a case", autofocus: true });
  const state = h("select", { "aria-label": "State" }, h("option", { value: "" }, "All states"), Object.entries(STATES).map(([value, words]) => h("option", { value }, words)));
  const list = h("ul", { class: "case-list" }), count = h("p", { class: "hint", role: "status" }, "Asking the server");
  const dialog = sheet("Cases", h("div", { class: "buttons" }, find, state), count, list);
  let cases = [];
  const draw = () => {
    const words = find.value.trim().toLowerCase();
    const wanted = cases.filter((item) => (!state.value || item.state === state.value) && item.id.toLowerCase().includes(words));
    const shown = wanted.slice(0, MOST);
    count.textContent = wanted.length > MOST ? `${number(wanted.length)} cases, the first ${MOST} are shown: type a part of the name.` : `${number(wanted.length)} of ${number(cases.length)} cases`;
    fill(list, shown, () => shown.map((item) => row(item, () => {
      dialog.close();
      open(item.id);
    })));
  };
  find.addEventListener("input", draw);
  state.addEventListener("change", draw);
  try {
    cases = await read();
    draw();
  } catch (error) {
    count.textContent = wordsOf(error);
  }
}

function row(item, open) {
  const who = item.lease ? `for ${item.lease.user || "somebody"}` : item.labels ? [item.author, when(item.time)].filter(Boolean).join(", ") : "";
  const bad = item.error ?? item.label_error;
  return h("li", { "data-case": item.id }, h("button", { type: "button", class: "row", onclick: open, disabled: item.state === "unusable" },
    h("span", { class: "id" }, item.id), h("span", { class: `state ${item.state}` }, STATES[item.state] ?? item.state), h("span", { class: "muted" }, bad || who)));
}
