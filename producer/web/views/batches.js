// The batches, newest first; each card asks for its own figures, and again while it runs.
import { every, get } from "../api.js";
import { fill, h } from "../dom.js";
import { ago, count, many } from "../format.js";
import { stacked } from "./state.js";

export const isOpen = (batch) => ["held", "queued", "running"].some((status) => batch.statuses[status]) || !batch.submitted_at;

export async function batches(root, { signal }) {
  const { batches: found } = await get("/v1/batches?limit=30", signal);
  const cards = found.map(card);
  const list = found.length ? h("div.grid", {}, cards.map(({ element }) => element))
    : h("div.empty", {}, h("h2", {}, "No batches yet"), h("p", {}, "A batch is a whole dataset in one go: ", h("code", {}, "latentmill batch submit FOLDER --recipe recipe.yaml")));
  fill(root, h("div.head", {}, h("h1", {}, "Batches")), list);
  const update = () => Promise.all(cards.filter(({ open }) => open()).map(async ({ id, update }) => update(await get(`/v1/batches/${id}`, signal))));
  update();
  every(4000, signal, update);
}

function card({ id, name, source, created_at: at }) {
  const body = h("div.stack");
  let now = null;
  const element = h("section.card.stack", { ariaLabel: name },
    h("div", {}, h("h2", {}, h("a", { href: `#/batches/${id}` }, name)), h("p.soft.small.mono", {}, source)),
    body,
    h("p.soft.small", {}, h("time", { dateTime: at }, ago(at))));
  return {
    id, element,
    open: () => !now || isOpen(now),
    update(next) {
      now = next;
      fill(body, stacked(next.statuses, next.rows), h("p.small.number", {}, told(next)));
    },
  };
}

/** "120 of 400 done, 3 failed" */
export function told({ rows, statuses }) {
  const done = statuses.succeeded + statuses.skipped;
  const parts = [`${count(done)} of ${many(rows, "row")} done`];
  for (const status of ["running", "failed", "canceled", "held", "lost"]) {
    if (statuses[status]) parts.push(`${count(statuses[status])} ${status}`);
  }
  return parts.join(", ");
}
