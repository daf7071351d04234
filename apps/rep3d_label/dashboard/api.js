// Requests to the server, and what went wrong in words.

// The page is at PREFIX/rep3d/; the server's other addresses are below PREFIX.
const ROOT = new URL("..", location.href);
const TIMEOUT = 60_000;

export class Refused extends Error {}
export class Unreachable extends Error {}

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
  let content = null;
  try { content = text ? JSON.parse(text) : null; } catch { /* an answer that is no JSON has no detail */ }
  if (answer.ok) return content;
  if (answer.status === 401) location.assign(address("rep3d/login"));
  const detail = content?.detail;
  if (typeof detail === "string") throw new Refused(detail);
  // Without words of the server's: a proxy before it answers, because it is not there.
  if (answer.status === 502 || answer.status === 503 || answer.status === 504) throw new Unreachable("The server is not ready");
  throw new Refused(`The server answered ${answer.status} ${answer.statusText}`);
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
