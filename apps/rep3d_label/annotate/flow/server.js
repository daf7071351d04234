// What the page asks of the server, each as one call.
import { address, ask } from "../../api.js";

const at = encodeURIComponent;

/** What a case says of its final label, null where it has none. */
export const labelOf = ({ state, author, time, submission, review }) => (state === "submitted" || state === "reviewed" ? { author, time, submission, review } : null);
/** A random name; crypto.randomUUID is there only under https. */
export const fresh = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

export class Server {
  /** @param {Transfers} transfers
   *  @param {() => string} name the user's own name, which a server without keys believes; "" for none. */
  constructor(transfers, name) {
    this.transfers = transfers;
    this.name = name;
  }

  #who() {
    const name = this.name();
    return name ? { client_id: name } : {};
  }

  status = () => ask("GET", "/rep3d/status");
  info = () => ask("GET", "/info/");
  user = () => ask("GET", "/auth/token/valid");
  cases = (model) => ask("GET", `/rep3d/cases?model=${at(model)}`);
  case = (id) => ask("GET", `/rep3d/cases/${at(id)}`);
  history = (id) => ask("GET", `/rep3d/cases/${at(id)}/history`);
  restore = (id, entry) => ask("POST", `/rep3d/cases/${at(id)}/history/${at(entry)}/restore`, this.#who());
  review = (id, remark) => ask("POST", `/rep3d/cases/${at(id)}/review`, { ...this.#who(), ...(remark ? { remark } : {}) });
  takeReviewBack = (id) => ask("DELETE", `/rep3d/cases/${at(id)}/review`);
  reserve = (id) => ask("POST", `/rep3d/leases/${at(id)}`, this.#who());
  release = (id) => ask("DELETE", `/rep3d/leases/${at(id)}`);
  /** As `release`, while the page goes. */
  releaseAtLast = (id) => fetch(address(`/rep3d/leases/${at(id)}`), { method: "DELETE", keepalive: true }).catch(() => {});
  train = (model, settings) => ask("POST", `/train/${at(model)}`, settings);
  stopTraining = () => ask("DELETE", "/train/");
  versions = (model) => ask("GET", `/rep3d/models/${at(model)}/versions`);
  publish = (model, version) => ask("POST", `/rep3d/models/${at(model)}/versions/${at(version)}/publish`, { ...this.#by(), reason: "published on the page for annotating" });
  rollBack = (model) => ask("POST", `/rep3d/models/${at(model)}/rollback`, { ...this.#by(), reason: "rolled back on the page for annotating" });
  requests = () => ask("GET", "/rep3d/requests");
  cancel = (request) => ask("DELETE", `/rep3d/requests/${at(request)}`);

  #by() {
    const name = this.name();
    return name ? { by: name } : {};
  }

  /** The case that would teach most, or null where all are done. */
  async next(strategy) {
    const sample = await ask("POST", `/activelearning/${at(strategy)}`, this.#who());
    return sample?.id ? sample : null;
  }

  image = (id, channel, options) => this.transfers.receive(`/rep3d/voxels/images/${at(id)}?channel=${channel}`, options);

  /** The final label of an image, or an earlier one (`entry`). */
  async label(id, entry, options) {
    const which = entry ? `entry=${at(entry)}` : "tag=final";
    return (await this.transfers.receive(`/rep3d/voxels/labels/${at(id)}?${which}`, options)).arrays.label;
  }

  segment = (id, model, params, options) =>
    this.transfers.receive(`/rep3d/voxels/infer/${at(model)}?image=${at(id)}`, { method: "POST", body: params, ...options });

  submit = (id, { shape, affine, mark }, label, params, signal) =>
    this.transfers.send(`/rep3d/voxels/labels/${at(id)}?tag=final`, { label, shape, affine, params: { ...params, drawn_on: mark, ...this.#who() }, signal });
}
