// The schedules: when each comes next, and what came of the last times.
import { every, get, send } from "../api.js";
import { fill, h, say } from "../dom.js";
import { ago, count, when, words } from "../format.js";

export async function schedules(root, { signal }) {
  const list = h("div.stack");
  let drawn = "";

  async function update() {
    const { schedules: found } = await get("/v1/schedules", signal);
    const now = JSON.stringify(found);
    if (now === drawn) return;
    drawn = now;
    if (found.length) fill(list, found.map((schedule) => card(schedule, order)));
    else fill(list, h("div.empty", {}, h("h2", {}, "No schedules yet"), h("p", {}, "A schedule submits a dataset again and again: ", h("code", {}, "latentmill schedule add NAME --cron \"0 2 * * *\" …"))));
  }

  async function order(name, verb, said) {
    await send("POST", `/v1/schedules/${encodeURIComponent(name)}/${verb}`, undefined, signal);
    say(said);
    await update();
    list.querySelector(`[data-name="${CSS.escape(name)}"] button`)?.focus();
  }

  await update();
  fill(root, h("div.head", {}, h("h1", {}, "Schedules")), list);
  every(5000, signal, update);
}

function card(schedule, order) {
  const { name, paused, next_at: next } = schedule;
  const element = h("section.card.stack", { ariaLabel: name },
    h("div.head", {},
      h("h2", {}, name), paused ? h("span.pill.canceled", {}, "paused") : null,
      h("span.spring"),
      h("div.actions", {},
        paused ? h("button", { onclick: () => order(name, "resume", `${name} goes on.`) }, "Resume") : h("button", { onclick: () => order(name, "pause", `${name} is paused.`) }, "Pause"),
        h("button", { onclick: () => order(name, "run", `${name} runs now.`) }, "Run now"))),
    h("dl.facts", {},
      h("dt", {}, "Cron"), h("dd", {}, h("code", {}, schedule.cron), ` ${schedule.timezone}`),
      h("dt", {}, "Next"), h("dd", {}, paused ? "when it is resumed" : next ? h("time", { dateTime: next, title: when(next) }, `${ago(next)}, ${when(next)}`) : "never"),
      h("dt", {}, "Source"), h("dd", {}, h("code", {}, schedule.source))),
    schedule.firings.length > 0 && history(schedule.firings));
  element.dataset.name = name;
  return element;
}

function history(firings) {
  return h("div.scroll", { tabIndex: 0, role: "region", ariaLabel: "Last times" }, h("table.small", {},
    h("thead", {}, h("tr", {}, ["Due", "State", "Rows", "New jobs", "Batch"].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, firings.map((firing) => h("tr", {},
      h("td", {}, h("time", { dateTime: firing.due_at }, when(firing.due_at))),
      h("td", {}, firing.state, firing.error && h("span.soft", {}, ` ${words(firing.error_code)}: ${firing.error}`)),
      h("td.number", {}, count(firing.rows ?? 0)), h("td.number", {}, count(firing.jobs ?? 0)),
      h("td", {}, firing.rows ? h("a", { href: `#/batches/${encodeURIComponent(firing.batch)}` }, firing.batch) : firing.batch))))));
}
