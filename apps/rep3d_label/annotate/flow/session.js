// The session with the server: how it is, asked again and again, never while nobody looks; and what is lost when it ends.
import { login, Refused } from "../../api.js";
import { isRunning } from "../../training.js";

const BUSY_MS = 2_000, IDLE_MS = 10_000, LOST_MS = 3_000;
const RANKS = ["admin", "reviewer", "annotator"];

export class Session {
  #server;
  #view;
  #lease;
  #first = null; // what the server was when the page was loaded
  #stamp = "";
  #timer = 0;
  #asking = null;

  constructor({ server, view, lease }) {
    this.#server = server;
    this.#view = view;
    this.#lease = lease;
    login.ended = () => view.update({ connection: "signed_out" });
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.refresh(); });
  }

  /** Asks for all that the page begins with; throws what the server refuses. */
  async begin() {
    const [status, info, user] = await Promise.all([this.#server.status(), this.#server.info(), this.#server.user()]);
    const strategies = Object.entries(info.strategies ?? {}).map(([name, about]) => ({ name, words: about.description ?? String(about) }));
    this.#first = { version: status.server.version, id: status.server.id, user: status.user };
    this.#view.update({
      strategies, strategy: info.rep3d?.default_strategy || strategies[0]?.name || "hybrid", user: status.user,
      role: RANKS.find((role) => (user.roles ?? []).some((name) => name.includes(role))) ?? "user",
    });
    await this.#take(status);
    this.#plan();
    return { folder: status.server.id, user: status.user ?? "" };
  }

  /** Asks how things are, now. */
  async refresh() {
    clearTimeout(this.#timer);
    if (!this.#first) return;
    this.#asking ??= this.#ask().finally(() => { this.#asking = null; });
    await this.#asking;
    this.#plan();
  }

  choose(name) {
    const model = this.#view.now.models.find((known) => known.name === name);
    if (model) this.#view.update({ model });
    this.#stamp = "";
    this.refresh();
  }

  async #ask() {
    try {
      await this.#take(await this.#server.status());
    } catch (error) {
      if (error instanceof Refused && error.status === 401) this.#view.update({ connection: "signed_out" });
      else this.#view.update({ connection: "lost", why: error.message });
    }
  }

  #plan() {
    clearTimeout(this.#timer);
    const { connection, training } = this.#view.now;
    const pause = connection === "lost" ? LOST_MS : connection === "ready" && training.active ? BUSY_MS : IDLE_MS;
    this.#timer = setTimeout(() => (document.hidden ? this.#plan() : this.refresh()), pause);
  }

  async #take(status) {
    const { version, id } = status.server, first = this.#first;
    this.#lease.ahead = Date.parse(status.server.time) - Date.now();
    const same = version === first.version && id === first.id && status.user === first.user;
    const models = Object.entries(status.models).map(([name, model]) => ({
      name, version: model.version ?? "", error: model.error ?? "", labels: model.labels.map(entry), stamp: model.versions_stamp,
      training: training(model.training ?? {}),
    }));
    const model = models.find(({ name }) => name === (this.#view.now.model?.name ?? status.default_model)) ?? models[0];
    const { connection, message } = this.#view.now;
    this.#view.update({
      ...(connection !== "ready" && message?.away ? { message: null } : {}),
      connection: same ? "ready" : "other_version", server: status.server, models, model, completed: status.cases.labelled,
      total: status.cases.total, training: model.training, problems: status.server.problems,
    });
    const stamp = `${model.name} ${model.stamp}`;
    if (stamp !== this.#stamp) {
      const { versions } = await this.#server.versions(model.name);
      this.#stamp = stamp;
      this.#view.update({ versions: versions.length, versionRows: versions.toReversed() });
    }
  }
}

const entry = ({ name, value, colour }) => ({ name, value, color: [1, 3, 5].map((place) => parseInt(colour.slice(place, place + 2), 16)) });

const training = (stats) => ({ active: isRunning(stats), resumable: Boolean(stats.resumable), stats });
