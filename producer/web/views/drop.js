// The place for the first step's picture.
import { request } from "../api.js";
import { fill, h, say, setText } from "../dom.js";
import { showBlob } from "../picture.js";

const SVG = "http://www.w3.org/2000/svg";

export function dropZone({ onchange, signal }) {
  let chosen = null; // a file of the user's
  let known = null; // the key of a picture that the server has
  const input = h("input", { type: "file", accept: "image/*", "aria-label": "Choose a picture", onchange: () => input.files[0] && choose(input.files[0]) });
  const invitation = h("div", {}, icon(), h("p", {}, h("b", {}, "Drop a picture here")), h("p.soft.small", {}, "or choose or paste one. Without one, the prompt alone makes the picture."));
  const zone = h("div.drop", {
    ondragover: (event) => (event.preventDefault(), zone.classList.add("over")),
    ondragleave: () => zone.classList.remove("over"),
    ondrop: (event) => {
      event.preventDefault();
      zone.classList.remove("over");
      const [file] = event.dataTransfer.files;
      if (file) choose(file);
    },
  }, invitation, input);
  const name = h("span.soft.small");
  const remove = h("button.plain", { type: "button", hidden: true, onclick: () => set(null, null) }, "Remove");
  const element = h("div", {}, zone, h("div.drop-foot", {}, name, remove));

  async function choose(file) {
    set(file, null, file.name || "pasted picture");
    try {
      await paint(file);
    } catch {
      set(null, null);
      setText(name, `${file.name || "This"} is not a picture that this browser can read.`);
      say(name.textContent);
    }
  }

  async function take(key, path) {
    set(null, key, "the same picture");
    await request(path, { signal }).then((answer) => answer.blob()).then(paint).catch(() => setText(name, key));
  }

  async function paint(blob) {
    const image = h("img", { alt: "The picture to begin with" });
    await showBlob(image, blob);
    if (chosen === blob || known) {
      fill(zone, image, input);
      setText(name, `${name.textContent}, ${image.naturalWidth} × ${image.naturalHeight}`);
    }
  }

  function set(file, key, label = "") {
    [chosen, known] = [file, key];
    if (!file) input.value = "";
    if (!file && !key) fill(zone, invitation, input);
    zone.classList.toggle("filled", Boolean(file || key));
    remove.hidden = !file && !key;
    setText(name, label);
    onchange();
  }

  return { element, choose, take, file: () => chosen, key: () => known, filled: () => Boolean(chosen || known) };
}

function icon() {
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  for (const [name, value] of Object.entries({ width: 40, height: 40, viewBox: "0 0 40 40", "aria-hidden": "true" })) svg.setAttribute(name, value);
  path.setAttribute("d", "M6 10a4 4 0 0 1 4-4h20a4 4 0 0 1 4 4v20a4 4 0 0 1-4 4H10a4 4 0 0 1-4-4zM6 28l8-8 7 7 4-4 9 8M25 16a2.500 2.500 0 1 0 .01 0");
  path.setAttribute("fill", "none");
  path.setAttribute("stroke", "currentColor");
  path.setAttribute("stroke-width", "2");
  path.setAttribute("stroke-linejoin", "round");
  svg.append(path);
  return svg;
}
