// All jobs, newest first.
import { every, get, query } from "../api.js";
import { fill, h, setText } from "../dom.js";
import { ago, count, share, words } from "../format.js";
import { picture } from "../picture.js";
import { HEIGHT, rows } from "../rows.js";
import { pill } from "./state.js";

const STATES = ["", "queued", "running", "succeeded", "failed", "canceled"];
const PAGE = 100;
/** So many of the newest are looked at again. */
const NEWEST = 50;

export async function jobs(root, { search, signal }) {
  const filter = { state: search.get("state") ?? "", batch: search.get("batch") ?? "", label: search.get("label") ?? "" };
  const known = new Map();
  let order = []; // ids, newest first
  let ended = false; // the last page is there
  let asking = false;
  const empty = h("div.empty", { hidden: true });
  const list = rows({ label: "Jobs", make: row, more, signal });

  /** Look at so many jobs from an index on, and put what is there now in the place of what was. */
  async function look(from, limit) {
    const cursor = order[from - 1];
    const { jobs: found } = await get(`/v1/jobs${query({ ...filter, cursor, limit })}`, signal);
    for (const job of found) known.set(job.id, brief(job));
    const ids = found.map(({ id }) => id);
    const before = cursor ? order.filter((id) => id >= cursor) : [];
    const after = found.length < limit ? [] : order.filter((id) => id < ids.at(-1));
    order = [...before, ...ids, ...after];
    list.set(order.map((id) => known.get(id)));
    empty.hidden = order.length > 0;
    return found.length;
  }

  async function more() {
    if (ended || asking) return;
    asking = true;
    try {
      ended = (await look(order.length, PAGE)) < PAGE;
    } finally {
      asking = false;
    }
  }

  /** Look again at the newest and at those on the screen. */
  async function refresh() {
    if (asking) return;
    asking = true;
    try {
      const [first, end] = list.near();
      const top = order[first];
      if (first >= NEWEST && order.slice(first, end).some((id) => !isEnded(known.get(id)))) await look(first, end - first);
      await look(0, NEWEST);
      chosen.update(await get("/v1/counts", signal));
      // What is being looked at stays where it is.
      const moved = order.indexOf(top) - first;
      if (first > 0 && moved > 0) scrollBy(0, moved * HEIGHT);
    } finally {
      asking = false;
      list.redraw(); // more may have been wanted meanwhile
    }
  }

  function change(values) {
    const next = { ...filter, ...values };
    location.hash = `#/jobs${query(next)}`;
  }

  const field = (name, label, placeholder) => h("input", {
    type: "search", name, placeholder, "aria-label": label, value: filter[name],
    onchange: (event) => change({ [name]: event.target.value.trim() }),
  });
  const chosen = states(filter.state, change);
  chosen.update(await get("/v1/counts", signal));
  const refusal = await more().catch((error) => {
    if (error.status !== 422) throw error;
    ended = true; // a filter that cannot be
    return error;
  });
  if (refusal) fill(empty, h("p", { role: "alert" }, refusal.message));
  else fill(empty, h("h2", {}, "No jobs here"), h("p", {}, Object.values(filter).some(Boolean) ? "None fits what is chosen above." : h("a", { href: "#/submit" }, "Submit the first one")));
  fill(root,
    h("div.head", {}, h("h1", {}, "Jobs")),
    h("div.filters", {}, chosen.element, field("batch", "Only of this batch", "Batch"), field("label", "Only with this label", "Label: name=value")),
    h("div.card.table", {}, list.element, empty));
  empty.hidden = order.length > 0;
  if (!refusal) every(2500, signal, refresh);
}

const isEnded = ({ state }) => !["queued", "running"].includes(state);

function states(chosen, change) {
  const told = new Map(STATES.map((state) => [state, h("span", {}, state || "all")]));
  const element = h("div.choice", { role: "radiogroup", ariaLabel: "State" }, STATES.map((state) => h("label", {},
    h("input", { type: "radio", name: "state", value: state, checked: state === chosen, onchange: () => change({ state }) }), told.get(state))));
  return {
    element,
    update(counts) {
      for (const [state, text] of told) setText(text, state && counts[state] ? `${state} ${count(counts[state])}` : state || "all");
    },
  };
}

/** What a row shows: of a hundred thousand jobs nothing else is kept. */
function brief(job) {
  const steps = job.spec?.steps ?? [];
  const kind = steps.length > 1 ? `chain of ${steps.length}` : steps[0]?.kind === "img2img" ? "picture to picture" : "text to picture";
  const beside = { running: `${Math.round(share(job) * 100)} %`, failed: words(job.error_code ?? "") };
  return {
    id: job.id,
    state: job.state,
    at: job.created_at,
    what: steps.at(-1)?.prompt || (steps.length ? "No prompt" : job.id),
    about: [steps[0]?.model, kind, job.id.slice(-8)].filter(Boolean).join(" · "),
    beside: beside[job.state] ?? job.batch ?? "",
    pictured: Boolean(job.artifact),
  };
}

function row({ id }) {
  const what = h("div.what");
  const about = h("div.soft.small.what");
  const state = h("div");
  const beside = h("div.soft.small.wide.what");
  const age = h("time.soft.small.end.wide");
  const thumb = h("div.thumb");
  let drawn = {};
  return {
    element: h("a.row", { href: `#/jobs/${id}` }, thumb, h("div", {}, what, about), beside, state, age),
    update(next) {
      setText(age, ago(next.at));
      if (next === drawn) return;
      setText(what, next.what);
      setText(about, next.about);
      setText(beside, next.beside);
      if (next.state !== drawn.state) fill(state, pill(next.state));
      if (next.pictured && !drawn.pictured) fill(thumb, picture(`/v1/jobs/${id}/pictures/result?width=96`, ""));
      drawn = next;
    },
  };
}
