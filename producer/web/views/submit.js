// Asking for a picture: one step, or a chain of them.
import { get, request } from "../api.js";
import { fill, h, say, setText } from "../dom.js";
import { dropZone } from "./drop.js";
import { stepCard } from "./step.js";

const MOST_STEPS = 16;
const LAST_MODEL = "latentmill.model";

export async function submit(root, { search, signal }) {
  const { models } = await get("/v1/models", signal);
  const before = search.get("from") && (await get(`/v1/jobs/${search.get("from")}`, signal));
  const spec = before?.spec;
  const cards = [];
  const list = h("ol.stack");
  const picture = dropZone({ onchange: renumber, signal });
  const keep = h("input", { type: "checkbox", id: "keep", checked: spec?.keep_steps ?? true });
  const keepLine = h("label.check", { htmlFor: "keep" }, keep, "Keep every step’s picture");
  const wrong = h("p.wrong", { role: "alert", hidden: true });
  const send = h("button.main", { type: "submit" }, "Submit");
  const more = h("button", { type: "button", onclick: () => add({ model: cards.at(-1).values().model }).focus() }, "Add a step");

  function renumber() {
    cards.forEach((card, index) => card.place(index, cards.length, index > 0 || picture.filled()));
    keepLine.hidden = cards.length < 2;
    more.disabled = cards.length >= MOST_STEPS;
    setText(send, cards.length > 1 ? `Submit the chain of ${cards.length}` : "Submit");
  }

  function add(values = {}) {
    const card = stepCard(models, values, {
      remove() {
        cards.splice(cards.indexOf(card), 1);
        card.element.remove();
        renumber();
        cards.at(-1).focus();
      },
    });
    cards.push(card);
    list.append(card.element);
    renumber();
    return card;
  }

  async function enter(event) {
    event.preventDefault();
    wrong.hidden = true;
    cards.forEach((card) => card.blame(null));
    const steps = cards.map((card, index) => {
      const kind = index > 0 || picture.filled() ? "img2img" : "text2img";
      return { kind, ...card.values() };
    });
    if (picture.key()) steps[0].image = picture.key();
    const asked = { ...around(spec), steps, keep_steps: cards.length > 1 && keep.checked };
    send.disabled = true;
    try {
      const job = await post(asked, picture.file(), signal);
      localStorage.setItem(LAST_MODEL, steps[0].model);
      say("The job is submitted.");
      location.hash = `#/jobs/${job.id}`;
    } catch (error) {
      if (signal.aborted) return;
      fill(wrong, error.message);
      wrong.hidden = false;
      const [, step, field] = /steps\.(\d+)\.(\w+)/.exec(error.message) ?? [];
      cards[step]?.blame(field);
    } finally {
      send.disabled = false;
    }
  }

  for (const step of spec?.steps ?? [{ model: await likelyModel(models, signal) }]) add(step);
  const image = spec?.steps[0].image;
  // Of a URL, what may be a secret is not shown: it cannot be asked for again from here.
  if (image && !image.endsWith("…")) picture.take(image, `/v1/jobs/${before.id}/pictures/input`);
  fill(root, h("form", { onsubmit: enter, noValidate: true },
    h("div.head", {}, h("h1", {}, before ? "Submit it again" : "Submit a job")),
    h("div.submit", {},
      h("div.submit-side", {}, picture.element),
      h("div.stack", {}, list, h("div.send", {}, send, more, keepLine), wrong))));
  addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
    if (file) picture.choose(file);
  }, { signal });
}

/** The model that was asked for last, else one that a worker has loaded, else the bundled one. */
async function likelyModel(models, signal) {
  const { workers } = await get("/v1/workers", signal);
  const likely = [localStorage.getItem(LAST_MODEL), ...workers.flatMap(({ loaded }) => loaded), "demo"];
  return likely.find((name) => models.some(({ alias }) => alias === name));
}

/** What holds for the steps together and has no field on this page stays as it was. */
function around(spec) {
  if (!spec) return {};
  const { priority, labels, max_attempts, check_output } = spec;
  return { priority, labels, max_attempts, check_output };
}

async function post(spec, file, signal) {
  if (!file) return (await request("/v1/jobs", { method: "POST", json: spec, signal })).json();
  const body = new FormData();
  body.append("spec", JSON.stringify(spec));
  body.append("image", file);
  return (await request("/v1/jobs", { method: "POST", body, signal })).json();
}
