// The large picture of a job: what it begins from, what it denoises, what came of it.
import { request } from "../api.js";
import { compare } from "../compare.js";
import { fill, h, setText } from "../dom.js";
import { change, show } from "../picture.js";

const IN_PROGRESS = ["queued", "running"];

export function stage(id, signal) {
  const element = h("figure.stage");
  const live = h("img", { alt: "What the job denoises now" });
  const note = h("p.stage-note");
  let chosen = null; // a picture of the strip
  let state = null; // what is shown

  const path = (name) => `/v1/jobs/${id}/pictures/${name}`;
  const image = (name, alt) => {
    const made = h("img", { alt });
    show(made, path(name), signal).catch(() => {});
    return made;
  };

  function update(job) {
    const first = job.spec?.steps[0];
    const input = first?.kind === "img2img" ? "input" : null;
    const wanted = chosen ?? (job.artifact ? "result" : IN_PROGRESS.includes(job.state) ? "live" : input ?? "none");
    setText(note, job.state === "queued" ? "Waits for a worker" : "The first preview comes soon");
    if (wanted === state) return;
    state = wanted;
    const last = job.spec?.steps.at(-1)?.prompt || "the result";
    if (wanted === "result" && input) fill(element, compare(image(input, "The picture it began from"), image("result", last)));
    else if (wanted === "live") {
      const behind = input && image(input, "");
      behind?.classList.add("behind");
      fill(element, behind, live, note);
    } else if (wanted === "none") fill(element, h("p.stage-note", {}, "There is no picture."));
    else fill(element, image(wanted, wanted === "input" ? "The picture it began from" : last));
  }

  /** Show the newest preview of the running job, and say how far it is. */
  async function look() {
    const answer = await request(`/v1/jobs/${id}/live`, { signal }).catch((error) => {
      // A preview is a courtesy: without it the job runs as well.
      if (signal.aborted || error.status === 401) throw error;
    });
    if (answer?.status !== 200) return null;
    const { preview, ...progress } = await answer.json();
    if (preview && state === "live") {
      await change(live, `data:image/jpeg;base64,${preview}`);
      note.hidden = true;
    }
    return progress;
  }

  return { element, update, look, choose: (name, job) => ((chosen = name), update(job)) };
}
