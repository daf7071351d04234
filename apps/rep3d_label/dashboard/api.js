// Requests to the server, and what went wrong in words.

// This file is at PREFIX/rep3d/; the server's other addresses are below PREFIX.
const ROOT = new URL("..", import.meta.url);
const TIMEOUT = 60_000;

export class Refused extends Error {
  constructor(words, status, reason) { Object.assign(super(words), { status, reason }); }
}
export class Unreachable extends Error {}

/** What happens when the login has ended; a page may change it. */
export const login = { ended: () => location.assign(address("rep3d/login")) };

export const address = (path) => new URL(path.replace(/^\//, ""), ROOT).href;

/** A request; its JSON, if any. Throws Refused with the server's words, or Unreachable. */
export async function ask(method, path, body) {
  const options = { method, signal: AbortSignal.timeout(TIMEOUT) };
  if (body !== undefined) Object.assign(options, { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  let answer, text;
  try {
    answer = await fetch(address(path), options);
    text = await answer.text();
  } catch (error) {
    throw new Unreachable(error.name === "TimeoutError" ? "The server did not answer within a minute" : "The server cannot be reached");
  }
  return content(answer, text);
}

/** The JSON of an answer, or the error that it is. */
export function content({ ok, status, statusText }, text) {
  let found = null;
  try { found = text ? JSON.parse(text) : null; } catch { /* no JSON: no detail */ }
  if (ok) return found;
  if (status === 401) login.ended();
  const detail = found?.detail;
  if (typeof detail === "string") throw new Refused(detail, status, found.reason);
  // No words of the server's: a proxy answers, because it is not there.
  if (status >= 502 && status <= 504) throw new Unreachable("The server is not ready");
  throw new Refused(`The server answered ${status} ${statusText}`, status);
}

/** Runs what a button does: the button rests meanwhile, a refusal is shown beside it. */
export async function act(button, message, work) {
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  message.textContent = "";
  message.classList.remove("good");
  try {
    const words = await work();
    if (words) {
      message.classList.add("good");
      message.textContent = words;
    }
  } catch (error) {
    message.textContent = sentence(error.message);
    if (!(error instanceof Refused || error instanceof Unreachable)) console.error(error);
  } finally {
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
}

export const sentence = (text) => (text ? text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".") : "");
