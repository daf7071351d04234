// What is remembered in this browser from visit to visit; a browser that keeps nothing has the defaults.

const NAMES = { name: "", uncertainty: false, seen: false };
const KEY = "rep3d-annotate";

export class Settings {
  #values = { ...NAMES };

  constructor() {
    try {
      Object.assign(this.#values, JSON.parse(localStorage.getItem(KEY) ?? "{}"));
    } catch { /* nothing is remembered, or it is damaged */ }
    for (const name of Object.keys(NAMES)) {
      Object.defineProperty(this, name, { get: () => this.#values[name], set: (value) => this.#set(name, value) });
    }
  }

  #set(name, value) {
    this.#values[name] = value;
    try {
      localStorage.setItem(KEY, JSON.stringify(this.#values));
    } catch { /* nothing is remembered */ }
  }
}
