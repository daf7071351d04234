// What would make the page stand still: fetching, checking, packing and unpacking voxels. Runs as a worker.
import { content, login, Refused, Unreachable } from "../../api.js";
import { asFloats, asLabel, Damaged, gunzip, gzip, MEDIA_TYPE, pack, read, TooLarge } from "./voxels.js";

const KINDS = { Refused, Unreachable, Damaged, TooLarge };
const running = new Map(); // number of a task -> what aborts it
login.ended = () => {}; // a worker cannot show the form; the page does, when it reads the status

const TASKS = { receive, send, keep, unkeep };

self.addEventListener("message", async ({ data: { number, task, abort, ...args } }) => {
  if (abort) {
    running.get(number)?.abort();
    return;
  }
  const controller = new AbortController();
  running.set(number, controller);
  let last = 0;
  const tell = (done, total) => {
    if (done !== total && done - last < 1 << 20) return;
    last = done;
    self.postMessage({ number, done, total });
  };
  try {
    const [value, moved] = await TASKS[task](args, controller.signal, tell);
    self.postMessage({ number, value }, moved);
  } catch (error) {
    const kind = error.name === "AbortError" ? "AbortError" : Object.keys(KINDS).find((name) => error instanceof KINDS[name]);
    self.postMessage({ number, error: { kind: kind ?? (error instanceof RangeError ? "TooLarge" : ""), words: error.message, status: error.status, reason: error.reason } });
  } finally {
    running.delete(number);
  }
});

async function asked(url, options, signal) {
  try {
    return await fetch(url, { ...options, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable("The server cannot be reached");
  }
}

/** Fetches voxels: an image as it is, labels as bytes, uncertainty as floats. */
async function receive({ url, method = "GET", body }, signal, tell) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  const answer = await asked(url, { method, headers, body: body && JSON.stringify(body) }, signal);
  if (!answer.ok) content(answer, await answer.text());
  let found;
  try {
    found = await read(blocks(answer.body), tell);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new Unreachable("The connection to the server was cut");
  }
  const { arrays } = found;
  if (arrays.label) arrays.label = asLabel(arrays.label);
  if (arrays.uncertainty) arrays.uncertainty = asFloats(arrays.uncertainty);
  return [found, Object.values(arrays).map((array) => array.buffer)];
}

async function* blocks(stream) {
  const reader = stream.getReader(); // a ReadableStream is no iterable in every browser
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}

/** Sends a label; returns the server's answer. */
async function send({ url, label, shape, affine, params }, signal) {
  const body = await pack("label", label, shape, affine, params);
  const headers = { "Content-Type": MEDIA_TYPE, "Content-Encoding": "gzip" };
  const answer = await asked(url, { method: "PUT", headers, body }, signal);
  let text;
  try {
    text = await answer.text();
  } catch {
    throw new Unreachable("The connection to the server was cut");
  }
  return [content(answer, text), []];
}

async function keep({ label }) {
  return [await gzip(new Blob([label])), []];
}

async function unkeep({ packed }) {
  const label = await gunzip(packed);
  return [label, [label.buffer]];
}
