// The workers that are there.
import { every, get } from "../api.js";
import { fill, h } from "../dom.js";
import { ago, many } from "../format.js";

export async function workers(root, { signal }) {
  const grid = h("div.grid");
  async function update() {
    const { workers: found } = await get("/v1/workers", signal);
    if (!found.length) fill(grid, h("div.empty", {}, h("h2", {}, "No worker is there"), h("p", {}, "Start one with ", h("code", {}, "latentmill worker"), ". Jobs wait for it.")));
    else fill(grid, found.map(card));
  }
  await update();
  fill(root, h("div.head", {}, h("h1", {}, "Workers")), grid);
  every(2000, signal, update);
}

function card(worker) {
  const rate = worker.images_per_second;
  return h("section.card.stack", { ariaLabel: worker.name },
    h("div", {}, h("h2", {}, worker.device), h("p.soft.small.mono", {}, worker.name)),
    h("div.figures", {},
      figure(worker.busy, `of ${many(worker.slots, "slot")} busy`),
      figure(rate && rate < 10 ? rate.toFixed(2) : Math.round(rate), "images a second")),
    worker.running.length > 0 && h("ul.running-rows", {}, worker.running.map(line)),
    h("div", {},
      h("p.soft.small", {}, worker.loaded.length ? "Loaded" : "No model is loaded."),
      h("ul.chips", {}, worker.loaded.map((name) => h("li", {}, name)))),
    h("p.soft.small", {}, `Pool ${worker.pool}, started `, h("time", { dateTime: worker.started_at }, ago(worker.started_at))));
}

function line(row) {
  const inner = h("i");
  inner.style.width = `${row.total ? (100 * row.done) / row.total : 0}%`;
  const told = row.total ? `${row.done} of ${row.total}` : "preparing";
  return h("li.small", {},
    h("a.mono", { href: `#/jobs/${row.id}`, ariaLabel: `Job ${row.id}` }, row.id.slice(-8)),
    h("div.bar.running", { ariaHidden: "true" }, inner),
    h("span.soft.number", {}, told));
}

function figure(value, what) {
  return h("div", {}, h("b", {}, value), h("span", {}, what));
}
