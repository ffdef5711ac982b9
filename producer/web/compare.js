// Two pictures of one place, with a handle between them.
import { h } from "./dom.js";

/** A before/after slider: a range input lies over both, so keys, touch and mouse all move it. */
export function compare(before, after, label = "Before and after") {
  const frame = h("div.compare");
  const range = h("input", {
    type: "range", min: 0, max: 100, step: 0.5, value: 50, "aria-label": label,
    oninput: () => place(),
  });
  const place = () => {
    frame.style.setProperty("--at", `${range.value}%`);
    range.setAttribute("aria-valuetext", `${Math.round(range.value)} % before, the rest after`);
  };
  frame.append(
    after,
    h("div.compare-before", {}, before),
    h("span.compare-line", { ariaHidden: "true" }),
    h("span.tag.at-start", { ariaHidden: "true" }, "before"),
    h("span.tag.at-end", { ariaHidden: "true" }, "after"),
    range,
  );
  after.addEventListener("load", () => frame.style.setProperty("--ratio", after.naturalWidth / after.naturalHeight));
  place();
  return frame;
}
