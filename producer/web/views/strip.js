// A chain as a strip: its input, then each step with its picture.
import { fill, h } from "../dom.js";
import { picture } from "../picture.js";

export function strip(id, choose) {
  const element = h("ol.strip", { ariaLabel: "The chain, step by step", hidden: true });
  let drawn = "";
  let pressed = null;

  function update(job) {
    const steps = job.spec?.steps ?? [];
    const input = steps[0]?.kind === "img2img";
    element.hidden = steps.length < 2;
    const frames = [
      ...(input ? [{ name: "input", label: "input", there: true }] : []),
      ...steps.map((step, index) => ({
        name: index === steps.length - 1 ? "result" : String(index),
        label: `${index + 1}. ${step.prompt}`,
        there: Boolean(job.steps[index]?.artifact),
        said: index < job.steps.length ? "not kept" : job.state === "running" && index === job.progress.step ? "running" : job.state === "running" || job.state === "queued" ? "waits" : "—",
      })),
    ];
    const now = JSON.stringify(frames);
    if (now === drawn) return;
    drawn = now;
    fill(element, frames.map((frame) => item(frame, job)));
  }

  function item({ name, label, there, said }, job) {
    const square = h("span.square", {}, there ? picture(`/v1/jobs/${id}/pictures/${name}?width=192`, "") : said);
    const text = h("span.small", { title: label }, label);
    if (!there) return h("li", {}, h("div.frame", {}, square, text));
    const button = h("button", {
      type: "button", "aria-pressed": String(pressed === name),
      onclick: () => {
        pressed = pressed === name ? null : name;
        for (const other of element.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button && pressed !== null));
        choose(pressed, job);
      },
    }, square, text);
    return h("li", {}, button);
  }

  return { element, update };
}
