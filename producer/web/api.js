// The HTTP API as the page uses it: one function a way of asking.
import { sleep } from "./dom.js";

const STORED = "latentmill.key";

/** What the server refused, as its problem document says it (RFC 9457). */
export class Problem extends Error {
  constructor(status, about = {}) {
    super(about.detail || about.title || `The server answered with status ${status}.`);
    this.status = status;
    this.code = about.code;
  }
}

/** Whether the same request may succeed in a moment: the server is away, or busy. */
function mayPass(error) {
  return error instanceof Problem && (error.status === 0 || error.status === 429 || error.status >= 500);
}

/** Ask again and again until an answer comes. */
export async function insist(path, signal) {
  for (let pause = 500; ; pause = Math.min(pause * 2, 8000)) {
    try {
      return await get(path, signal);
    } catch (error) {
      if (signal.aborted || !mayPass(error)) throw error;
      await sleep(pause, signal);
    }
  }
}

/** Do something again and again while the view is shown and visible; waits for each answer. */
export function every(milliseconds, signal, task) {
  let timer = 0;
  const turn = async () => {
    try {
      if (!document.hidden) await task();
    } catch (error) {
      if (!mayPass(error)) throw error; // the next time may be better
    }
    if (!signal.aborted) timer = setTimeout(turn, milliseconds);
  };
  signal.addEventListener("abort", () => clearTimeout(timer), { once: true });
  timer = setTimeout(turn, milliseconds);
}

/** Take the key from the address (#key=…) once, and out of it. */
export function takeKey() {
  const found = /^#key=([^&]+)(?:&(.*))?$/.exec(location.hash);
  if (!found) return;
  setKey(decodeURIComponent(found[1]));
  history.replaceState(null, "", location.pathname + location.search + (found[2] ? `#${found[2]}` : ""));
}

export function setKey(key) {
  localStorage.setItem(STORED, key);
}

export async function request(path, { method = "GET", json, body, headers = {}, signal } = {}) {
  const key = localStorage.getItem(STORED);
  if (key) headers = { ...headers, Authorization: `Bearer ${key}` };
  if (json !== undefined) {
    body = JSON.stringify(json);
    headers = { ...headers, "Content-Type": "application/json" };
  }
  let answer;
  try {
    answer = await fetch(path, { method, body, headers, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: "The server cannot be reached." });
  }
  if (!answer.ok) throw new Problem(answer.status, await answer.json().catch(() => ({})));
  return answer;
}

export async function get(path, signal) {
  return (await request(path, { signal })).json();
}

export async function send(method, path, json, signal) {
  const answer = await request(path, { method, json, signal });
  return answer.status === 204 ? null : answer.json();
}

/** "a=1&b=2" of what is given. */
export function query(values) {
  const given = Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

/**
 * Server-sent events, for as long as the signal lets them; goes on where a lost connection ended.
 * An event "open" comes first and after each new connection: look then at what may have been missed.
 */
export async function* events(path, signal) {
  let last = null;
  let pause = 500;
  while (!signal.aborted) {
    try {
      const headers = { Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) };
      const answer = await request(path, { headers, signal });
      if (answer.status === 204) return;
      yield { event: "open" };
      for await (const event of parse(answer.body)) {
        pause = 500;
        if (event.id) last = event.id;
        if (event.data) yield { ...event, data: JSON.parse(event.data) };
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem && !mayPass(error)) throw error;
    }
    await sleep(pause, signal);
    pause = Math.min(pause * 2, 15000);
  }
}

async function* parse(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = { data: "" };
  while (true) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (event.data || event.id) yield event;
        event = { data: "" };
        continue;
      }
      const [, field, text] = /^([^:]*):? ?(.*)$/.exec(line);
      if (field === "data") event.data += (event.data && "\n") + text;
      else if (field === "id" || field === "event") event[field] = text;
    }
  }
}
