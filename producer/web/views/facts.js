// What is known about a job, beside its pictures.
import { h } from "../dom.js";
import { ago, between, duration, when, words } from "../format.js";

const NAMES = {
  model: "Model", negative_prompt: "Negative", strength: "Strength", guidance_scale: "Guidance", num_inference_steps: "Steps",
  seed: "Seed", scheduler: "Scheduler",
};

export function facts(job) {
  const steps = job.spec?.steps ?? [];
  return [
    ...steps.flatMap((step, index) => [
      steps.length > 1 && h("h2", {}, `Step ${index + 1}`),
      list(stepFacts(step, job.steps[index])),
    ]),
    h("h2", {}, "Job"),
    list([
      ["Id", h("code", {}, job.id)],
      ["Batch", job.batch && h("a", { href: `#/jobs?batch=${encodeURIComponent(job.batch)}` }, job.batch)],
      ["Worker", job.worker],
      ["Submitted", time(job.created_at)],
      ["Deadline", job.deadline && time(job.deadline)],
      ["Labels", Object.entries(job.spec?.labels ?? {}).map(([name, value]) => `${name}=${value}`).join(", ")],
      ["Warnings", job.warnings?.join(" ")],
    ]),
  ];
}

function stepFacts(step, done) {
  const used = { ...step, ...done?.options };
  const rows = Object.entries(NAMES).map(([name, label]) => [label, value(used[name])]);
  const size = done?.width ? `${done.width} × ${done.height}` : step.width && step.height ? `${step.width} × ${step.height}` : null;
  return [...rows, ["Size", size], ["Time", done?.seconds && duration(done.seconds)]];
}

function value(found) {
  return found && typeof found === "object" ? found.class : found;
}

export function attempts(job) {
  const told = job.attempts.filter((attempt) => attempt.error_code || job.attempts.length > 1);
  if (!told.length) return null;
  return h("div.card", {}, h("h2", {}, "Attempts"), h("ol.stack", {}, told.map((attempt) => h("li.small", {},
    h("p", {}, h("b", {}, `${attempt.number}. `), attempt.ended_at ? `${duration(between(attempt.started_at, attempt.ended_at))}, ` : "", attempt.error_code ? words(attempt.error_code) : attempt.ended_at ? "succeeded" : "running"),
    h("p.soft", {}, attempt.worker), attempt.error && h("p", {}, attempt.error)))));
}

function time(at) {
  return h("time", { dateTime: at, title: when(at) }, ago(at));
}

/** Rows that have something to say. */
function list(rows) {
  return h("dl.facts", {}, rows.filter(([, said]) => said || said === 0).map(([name, said]) => [h("dt", {}, name), h("dd", {}, said)]));
}
