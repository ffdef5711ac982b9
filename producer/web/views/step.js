// The fields of one step. An empty one leaves the value to the model.
import { h, setText } from "../dom.js";

/** As storage/spec.py names them, without the "Scheduler" that all end with. */
const SCHEDULERS = [
  "DDIM", "DDPM", "DPMSolverMultistep", "EulerAncestralDiscrete", "EulerDiscrete", "HeunDiscrete", "LCM", "PNDM", "UnCLIP",
  "UniPCMultistep",
];
/** Stands for a scheduler that was asked for with fields of its own. */
const KEPT = "as it was";

let ids = 0;

export function stepCard(models, values, { remove }) {
  const id = `step-${++ids}`;
  const fields = {
    prompt: h("textarea", { id: `${id}-prompt`, rows: 2, value: values.prompt ?? "", placeholder: "What the picture shall show" }),
    model: h("select", { id: `${id}-model`, onchange: suggest }, models.map(({ alias }) => h("option", { value: alias, selected: alias === values.model }, alias))),
    negative_prompt: h("textarea", { id: `${id}-negative_prompt`, rows: 1, value: values.negative_prompt ?? "", placeholder: "What it shall not show" }),
    num_inference_steps: number("num_inference_steps", 1, 1000),
    scheduler: h("select", { id: `${id}-scheduler` }, schedulers(values.scheduler)),
    seed: number("seed", 0, Number.MAX_SAFE_INTEGER),
    width: number("width", 64, 4096, 8),
    height: number("height", 64, 4096, 8),
  };
  const strength = slider("strength", "Strength", 0, 1, 0.01, 0.8, "How far the result may go from its picture");
  const guidance = slider("guidance_scale", "Guidance", 0, 20, 0.1, 7.5, "How closely it follows the prompt");
  const title = h("h2");
  const drop = h("button.plain", { type: "button", onclick: remove }, "Remove");
  const details = h("details", { open: Boolean(values.negative_prompt || values.scheduler) },
    h("summary", {}, "More"),
    h("div.stack", {},
      field("negative_prompt", "Negative prompt"),
      h("div.fields", {}, field("num_inference_steps", "Denoising steps"), field("scheduler", "Scheduler"), field("seed", "Seed")),
      h("div.fields", {}, field("width", "Width"), field("height", "Height"))));
  const element = h("li.card", {},
    h("div.step-head", {}, title, drop),
    h("div.stack", {}, field("prompt", "Prompt"), field("model", "Model"), h("div.fields", {}, strength.element, guidance.element), details));

  function number(name, min, max, step = 1) {
    return h("input", { id: `${id}-${name}`, type: "number", min, max, step, inputMode: "numeric", value: values[name] ?? "" });
  }

  function field(name, label) {
    return h("div.field", {}, h("label", { htmlFor: `${id}-${name}` }, label), fields[name]);
  }

  function slider(name, label, min, max, step, usual, hint) {
    const box = h("input", {
      id: `${id}-${name}`, type: "number", min, step, value: values[name] ?? "",
      oninput: () => { range.value = box.value === "" ? range.dataset.usual : box.value; },
    });
    const range = h("input", { type: "range", min, max, step, value: values[name] ?? usual, "aria-label": `${label}, slider`, oninput: () => { box.value = range.value; } });
    fields[name] = box;
    const line = h("div.slider", {}, h("label", { htmlFor: box.id }, label), range, box, h("p.soft.small", {}, hint));
    return {
      element: line,
      suggest(value) {
        range.dataset.usual = value ?? usual;
        box.placeholder = value ?? "auto";
        if (box.value === "") range.value = range.dataset.usual;
      },
    };
  }

  function suggest() {
    const model = models.find(({ alias }) => alias === fields.model.value) ?? {};
    strength.suggest(model.strength);
    guidance.suggest(model.guidance_scale);
    fields.num_inference_steps.placeholder = model.num_inference_steps ?? "auto";
    fields.seed.placeholder = "random";
  }

  suggest();
  return {
    element,
    /** Say which step this is, and whether a picture comes in. */
    place(index, total, fromPicture) {
      setText(title, total > 1 ? `Step ${index + 1}: ${fromPicture ? "picture to picture" : "text to picture"}` : fromPicture ? "Picture to picture" : "Text to picture");
      strength.element.hidden = !fromPicture;
      element.dataset.kind = fromPicture ? "img2img" : "text2img";
      drop.hidden = total < 2;
      drop.setAttribute("aria-label", `Remove step ${index + 1}`);
      fields.width.placeholder = fields.height.placeholder = fromPicture ? "the picture’s" : "auto";
    },
    focus: () => fields.prompt.focus(),
    /** Mark the field that the server named. */
    blame(name) {
      for (const input of Object.values(fields)) input.removeAttribute("aria-invalid");
      if (!fields[name]) return;
      if (details.contains(fields[name])) details.open = true;
      fields[name].setAttribute("aria-invalid", "true");
      fields[name].focus();
    },
    /** The step as a spec has it; what was asked before and has no field here stays. */
    values() {
      const { kind, image, ...asked } = values;
      for (const [name, input] of Object.entries(fields)) {
        const text = input.value.trim();
        if (text === KEPT && name === "scheduler") continue;
        const skip = text === "" || (name === "strength" && element.dataset.kind === "text2img");
        if (skip && (input.type === "number" || name === "scheduler")) delete asked[name];
        else asked[name] = input.type === "number" ? Number(text) : text;
      }
      return asked;
    },
  };
}

function schedulers(asked) {
  const known = [["", "the model’s own"], ...SCHEDULERS.map((name) => [`${name}Scheduler`, name])];
  if (asked?.class) known.push([KEPT, `${asked.class.replace(/Scheduler$/, "")}, with fields of its own`]);
  const chosen = asked?.class ? KEPT : asked ?? "";
  return known.map(([value, label]) => h("option", { value, selected: value === chosen }, label));
}
