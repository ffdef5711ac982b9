// How a state, and how far a job has come, look everywhere.
import { h } from "../dom.js";
import { share } from "../format.js";

export function pill(state) {
  return h(`span.pill.${state}`, {}, state);
}

/** A progress bar for one job. */
export function bar() {
  const inner = h("i");
  const element = h("div.bar", { role: "progressbar", "aria-label": "Progress", ariaValueMin: 0, ariaValueMax: 100 }, inner);
  return {
    element,
    update(job) {
      const percent = Math.round(share(job) * 1000) / 10;
      const unknown = job.state === "running" && !job.progress.total && job.progress.step === 0;
      element.className = `bar ${job.state}${unknown ? " unknown" : ""}`;
      inner.style.width = `${percent}%`;
      unknown ? element.removeAttribute("aria-valuenow") : element.setAttribute("aria-valuenow", percent);
    },
  };
}

/** A bar of counts: what succeeded, runs, failed, was canceled; the rest waits. */
export function stacked(counts, total) {
  const parts = ["succeeded", "running", "failed", "canceled"].filter((state) => counts[state]);
  const told = parts.map((state) => `${counts[state]} ${state}`).join(", ") || "none has begun";
  const element = h("div.bar", { role: "img", ariaLabel: told });
  for (const state of parts) {
    const part = h(`i.${state}`);
    part.style.width = `${(100 * counts[state]) / Math.max(1, total)}%`;
    element.append(part);
  }
  return element;
}
