// One batch: how far it is, why rows failed, and its pictures.
import { every, get, query, send } from "../api.js";
import { fill, h, setText } from "../dom.js";
import { ago, count, duration, many, words } from "../format.js";
import { picture } from "../picture.js";
import { isOpen, told } from "./batches.js";
import { stacked } from "./state.js";

const SHEET = 60;
const REASONS = 20;

export async function batch(root, { id, signal }) {
  const path = `/v1/batches/${encodeURIComponent(id)}`;
  let now = await get(path, signal);
  const figures = h("div.stack");
  const failures = h("div");
  const sheet = contactSheet(path, signal);
  const answer = h("p.soft.small", { role: "status" });
  const button = (label, verb, said, name = "button") => h(name, {
    onclick: async () => {
      const { jobs } = await send("POST", `${path}/${verb}`, undefined, signal);
      setText(answer, said(jobs));
      await update();
    },
  }, label);
  const retry = button("Retry what failed", "retry", (jobs) => (jobs ? `${many(jobs, "job")} queued again.` : "No row had become a job: submit the dataset again."));
  const cancel = button("Cancel the rest", "cancel", (jobs) => `${many(jobs, "job")} canceled.`, "button.danger");
  const release = button("Release the rest", "release", (jobs) => `${many(jobs, "job")} released.`, "button.main");

  async function update() {
    const before = now.statuses;
    now = await get(path, signal);
    await show(before);
  }

  async function show(before = {}) {
    const { statuses } = now;
    fill(figures, stacked(statuses, now.rows), h("p.number", { role: "status" }, told(now)), h("div.figures", {}, speed(now)));
    retry.hidden = !statuses.failed && !statuses.canceled;
    cancel.hidden = !isOpen(now);
    release.hidden = !now.held;
    if (statuses.failed !== before.failed) fill(failures, statuses.failed ? await reasons(path, now, signal) : null);
    if (statuses.succeeded !== before.succeeded) await sheet.more();
  }

  fill(root,
    h("div.head", {}, h("h1", {}, now.name), h("span.spring"), h("div.actions", {}, release, retry, cancel, h("a.button", { href: `#/jobs${query({ batch: now.id })}` }, "Its jobs")), answer),
    h("div.stack", {},
      h("section.card.stack", { ariaLabel: "Progress" }, figures, h("p.soft.small", {}, h("span.mono", {}, now.source), ", submitted ", h("time", { dateTime: now.created_at }, ago(now.created_at)))),
      failures, sheet.element));
  await show();
  every(2500, signal, () => isOpen(now) && update());
}

function speed({ statuses, images_per_second: rate }) {
  if (!rate) return null;
  const left = statuses.queued + statuses.running;
  return [
    h("div", {}, h("b", {}, rate < 10 ? rate.toFixed(2) : Math.round(rate)), h("span", {}, "images a second")),
    left > 0 && h("div", {}, h("b", {}, duration(left / rate)), h("span", {}, "left at this speed")),
  ];
}

/** Why rows failed: how many of each code, and the first of them with their sentence. */
async function reasons(path, { codes }, signal) {
  const { rows } = await get(`${path}/rows${query({ status: "failed", limit: REASONS })}`, signal);
  const total = Object.values(codes).reduce((sum, number) => sum + number, 0);
  const row = ({ number, name, place, code, reason, job_id: job }) => h("tr", {},
    h("td.number.soft", {}, number), h("td", {}, job ? h("a", { href: `#/jobs/${job}` }, name ?? place) : name ?? place),
    h("td", {}, h("b", {}, words(code ?? "")), reason && `: ${reason}`));
  return h("section.card.stack", { ariaLabel: "Failures" },
    h("h2", {}, "Failures by reason"),
    h("ul.chips", {}, Object.entries(codes).sort(([, one], [, other]) => other - one).map(([code, number]) => h("li", {}, `${words(code)} `, h("b", {}, count(number))))),
    h("div.scroll", { tabIndex: 0, role: "region", ariaLabel: "Failed rows" }, h("table.small", {},
      h("thead", {}, h("tr", {}, ["Row", "Name", "Reason"].map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, rows.map(row)))),
    total > rows.length && h("p.soft.small", {}, `The first ${rows.length} of ${count(total)}.`));
}

function contactSheet(path, signal) {
  const grid = h("div.sheet");
  const button = h("button", { hidden: true, onclick: () => { wanted += SHEET; return more(); } }, "Show more");
  const element = h("section.stack", { ariaLabel: "Contact sheet", hidden: true }, h("h2", {}, "Contact sheet"), grid, h("div", {}, button));
  const shown = new Set();
  let wanted = SHEET;

  /** Rows end in any order, so those that are shown are looked for again from the first on. */
  async function more() {
    const { rows, next_after: next } = await get(`${path}/rows${query({ status: "succeeded", limit: Math.min(500, wanted) })}`, signal);
    rows.forEach((row, index) => {
      if (shown.has(row.number)) return;
      shown.add(row.number);
      const link = h("a", { href: `#/jobs/${row.job_id}`, title: row.name }, picture(`/v1/jobs/${row.job_id}/pictures/result?width=192`, row.name ?? `Row ${row.number}`));
      grid.insertBefore(link, grid.children[index] ?? null);
    });
    element.hidden = rows.length === 0;
    button.hidden = next === null || wanted >= 500;
  }

  return { element, more };
}
