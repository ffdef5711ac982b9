// One job: watch it denoise, then compare.
import { events, every, get, insist, send } from "../api.js";
import { fill, h, say, setText } from "../dom.js";
import { between, duration, words } from "../format.js";
import { attempts, facts } from "./facts.js";
import { bar, pill } from "./state.js";
import { stage } from "./stage.js";
import { strip } from "./strip.js";

const ENDED = ["succeeded", "failed", "canceled"];
/** Of a running job's preview, in milliseconds. */
const LOOK = 330;

export async function job(root, { id, signal }) {
  let now = await get(`/v1/jobs/${id}`, signal);
  const title = h("h1.prompt");
  const state = h("span");
  const line = h("p.soft.number");
  const progress = bar();
  const wrong = h("div", { role: "alert" });
  const pictures = stage(id, signal);
  const chain = strip(id, pictures.choose);
  const about = h("div.card");
  const tries = h("div");
  const cancel = h("button.danger", { onclick: () => order("DELETE", `/v1/jobs/${id}`, "It will be canceled.") }, "Cancel");
  const retry = h("button", { onclick: () => order("POST", `/v1/jobs/${id}/retry`, "It is queued again.") }, "Try again");
  const again = h("a.button", {}, "Change and run again");

  async function order(method, path, said) {
    await send(method, path, undefined, signal);
    say(said);
    update(await get(`/v1/jobs/${id}`, signal));
  }

  function update(next) {
    const before = now.state;
    now = next;
    const steps = now.spec?.steps ?? [];
    const last = steps[steps.length - 1];
    document.title = `${now.state}: ${last?.prompt ?? id} · latentmill`;
    setText(title, last?.prompt || (last ? "No prompt" : id));
    fill(state, pill(now.state));
    setText(line, sentence(now));
    progress.update(now);
    progress.element.hidden = ENDED.includes(now.state);
    cancel.hidden = ENDED.includes(now.state) || now.cancel_requested;
    retry.hidden = !["failed", "canceled"].includes(now.state);
    again.hidden = !now.spec;
    again.href = `#/submit?from=${id}`;
    tellError();
    pictures.update(now);
    chain.update(now);
    fill(about, facts(now));
    fill(tries, attempts(now));
    if (before !== now.state) say(`The job ${now.state === "running" ? "is running" : `has ${now.state === "canceled" ? "been canceled" : now.state}`}.`);
  }

  function tellError() {
    const text = now.unreadable ?? (now.state === "failed" || now.state === "queued" ? now.error : null);
    if (!text) return fill(wrong);
    if (wrong.textContent.endsWith(text)) return;
    const code = now.error_code ? h("b", {}, `${words(now.error_code)}: `) : null;
    fill(wrong, h("p.wrong", {}, code, text));
  }

  fill(root, h("div.stack", {},
    h("div.head", {}, state, line, h("span.spring"), h("div.actions", {}, cancel, retry, again)),
    title, progress.element, wrong,
    h("div.job", {}, h("div.stack", {}, pictures.element, chain.element), h("div.stack", {}, about, tries))));
  update(now);
  watch(id, () => now, update, signal);
  every(LOOK, signal, async () => {
    const progress = now.state === "running" && (await pictures.look());
    if (progress && now.state === "running") update(ahead(now, progress));
  });
}

/** Follow a job by its events: progress as it comes, and the job itself when more has changed. */
async function watch(id, now, update, signal) {
  if (ENDED.includes(now().state)) return;
  for await (const { event, data } of events(`/v1/jobs/${id}/events`, signal)) {
    if (event === "progress") update(ahead(now(), data));
    else update(await insist(`/v1/jobs/${id}`, signal));
    if (ENDED.includes(now().state)) return;
  }
}

/** The job with newer progress. The preview is ahead of the events: what is behind changes nothing. */
function ahead(job, { step, done, total }) {
  const { progress } = job;
  if (step < progress.step || (step === progress.step && done < progress.done)) return job;
  return { ...job, progress: { ...progress, step, done, total } };
}

function sentence(job) {
  const { progress } = job;
  if (job.cancel_requested && job.state === "running") return "Canceled at its next step.";
  if (job.state === "queued") return Date.parse(job.run_at) > Date.now() + 2000 ? `Waits until ${new Date(job.run_at).toLocaleString()}` : "Waits for a worker";
  if (job.state === "running") {
    const where = progress.steps > 1 ? `Step ${progress.step + 1} of ${progress.steps}, ` : "";
    return progress.total ? `${where}${progress.done} of ${progress.total} denoise steps` : `${where}preparing`;
  }
  return job.started_at && job.finished_at ? `in ${duration(between(job.started_at, job.finished_at))}` : "";
}
