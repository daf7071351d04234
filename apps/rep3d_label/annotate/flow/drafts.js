// Unsent work, kept in the browser (IndexedDB) so that a reload, a crash or a lost server costs nothing. It goes only
// when the server has confirmed the label, or the user throws it away.

const STORE = "drafts";
const WAIT_MS = 250; // a tab answers within a few

/** Edits cannot be kept here; the message says why. */
export class NotKept extends Error {}

const WHY = {
  QuotaExceededError: "the browser's storage is full. Submit works all the same; or free space on the disk: the page tries again by itself",
  InvalidStateError: "this browser keeps nothing in a private window. Submit often, or use an ordinary window",
  SecurityError: "this browser's settings forbid pages to keep anything. Allow it for this site, or submit often",
};

const notKept = (error) => new NotKept(`Edits are only in this window: ${WHY[error?.name] ?? `the browser cannot keep them (${error?.message ?? "no reason given"})`}.`);

const settled = (request) => new Promise((done, failed) => {
  request.onsuccess = () => done(request.result);
  request.onerror = () => failed(request.error);
});

export class Drafts {
  #scope;
  #opened = null;
  #tabs = new BroadcastChannel("rep3d-annotate-drafts");
  /** The key of the draft that this tab has in hand, or null: the other tabs are told when they ask. */
  inHand = () => null;

  /** @param {{server: string, folder: string, user: string}} scope whose unsent work this is; `folder` is its id. */
  constructor(scope) {
    this.#scope = JSON.stringify([scope.server, scope.folder, scope.user]);
    this.#tabs.addEventListener("message", ({ data: { ask } }) => {
      if (ask && this.inHand()) this.#tabs.postMessage({ held: this.inHand() });
    });
  }

  async #database() {
    this.#opened ??= new Promise((done, failed) => {
      const request = globalThis.indexedDB ? indexedDB.open("rep3d-annotate", 1) : null;
      if (!request) {
        failed(new DOMException("", "SecurityError"));
        return;
      }
      request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "key" }).createIndex("scope", "scope");
      request.onsuccess = () => {
        request.result.onversionchange = () => request.result.close();
        done(request.result);
      };
      request.onerror = () => failed(request.error);
    });
    this.#opened.catch(() => { this.#opened = null; }); // the next one tries again
    return this.#opened;
  }

  async #change(mode, work) {
    try {
      const transaction = (await this.#database()).transaction(STORE, mode, { durability: "strict" });
      const ended = new Promise((done, failed) => {
        transaction.oncomplete = done;
        transaction.onabort = () => failed(transaction.error);
      });
      ended.catch(() => {}); // the request's own error comes first
      const value = await work(transaction.objectStore(STORE));
      await ended;
      return value;
    } catch (error) {
      throw notKept(error);
    }
  }

  /** Keeps a draft whole, or leaves the one before. `draft.packed` is a Blob of `Transfers.keep`. Throws NotKept. */
  save(draft) {
    return this.#change("readwrite", (store) => settled(store.put({ ...draft, scope: this.#scope })));
  }

  /** All of this server and user, the latest first, without their voxels. */
  async list() {
    const found = await this.#change("readonly", (store) => settled(store.index("scope").getAll(this.#scope)));
    return found.map(({ packed, ...draft }) => draft).sort((one, two) => two.time.localeCompare(one.time));
  }

  /** One with its voxels, undefined where it is gone. */
  read(key) {
    return this.#change("readonly", (store) => settled(store.get(key)));
  }

  async remove(...keys) {
    await this.#change("readwrite", (store) => Promise.all(keys.map((key) => settled(store.delete(key)))));
    this.tell(keys);
  }

  /** Tells the other tabs that the list is another, and which drafts are gone: one may be what a tab has in hand. */
  tell(gone) {
    this.#tabs.postMessage({ gone });
  }

  /** @param {(gone: string[]) => void} hear called when another tab tells. */
  listen(hear) {
    this.#tabs.addEventListener("message", ({ data: { gone } }) => { if (gone) hear(gone); });
  }

  /** The keys of what other tabs have in hand. They are asked each time: one that crashed does not answer. */
  async elsewhere() {
    const found = new Set(), hear = ({ data: { held } }) => found.add(held);
    this.#tabs.addEventListener("message", hear);
    this.#tabs.postMessage({ ask: true });
    await new Promise((done) => { setTimeout(done, WAIT_MS); });
    this.#tabs.removeEventListener("message", hear);
    return found;
  }
}
