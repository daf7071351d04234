// The case in hand, and what of it is kept.
import { fresh } from "./server.js";

/** What is remembered of the image that came: its grid, its voxels' checksum, and the mark of its file. */
export const drawnOn = ({ shape, affine, crc32, params: { mark } }, channel) => ({ shape, affine, crc32, mark, channel });

/** Whether what came is the image, voxel for voxel, that something was drawn on; its file may be another. */
export const sameImage = (one, other) => ["shape", "affine", "crc32"].every((part) => JSON.stringify(one[part]) === JSON.stringify(other[part]));

export class Work {
  /**
   * @param {string} id of the image.
   * @param {object} image see `drawnOn`.
   * @param {string} model whose labels are drawn.
   * @param {object|null} facts that the server has of the label that the work begins with; null where it has none.
   */
  constructor(id, image, model, facts) {
    this.id = id;
    this.image = image;
    this.model = model;
    this.facts = facts;
    this.key = fresh(); // of the draft
    this.sealed = []; // keys of drafts that were closed
    this.version = ""; // of the model whose segmentation is corrected
    this.proposal = null; // that segmentation
    this.sent = -1; // revision that the server has, or that nobody has drawn on
    this.kept = -1; // revision that is kept
    this.everSent = false;
    this.givenUp = null; // revision that may be lost, as the user has said
    this.gone = false; // another case is in hand
    this.submission = null; // {id, revision} of the latest submission
    this.tried = []; // ids of all submissions: a label that carries one is ours, whatever became of the answer
  }

  edited = (stage) => stage.revision !== this.sent;

  untouched = (stage) => !this.edited(stage) && !this.everSent;

  /** Names the submission of a revision; the same as long as nothing is drawn. */
  named(revision) {
    if (this.submission?.revision !== revision) {
      this.submission = { id: fresh(), revision };
      this.tried = [...this.tried, this.submission.id];
      this.kept = -1; // it is kept with its name
    }
    return this.submission;
  }

  /** What is kept beside the voxels. */
  draft(revision) {
    const { id, key, model, facts, version, tried, image: { shape, affine, crc32, channel } } = this;
    return { key, image: id, model, facts, version, tried, shape, affine, crc32, channel, submission: this.submission?.revision === revision ? this.submission.id : null };
  }

  /** Goes on with what was kept. */
  resume({ facts, version, tried }) {
    Object.assign(this, { facts, version, tried });
  }

  /** What is drawn from now on goes into a draft of its own; the one that is there stays. */
  seal() {
    this.sealed.push(this.key);
    this.key = fresh();
    this.submission = null;
  }
}
