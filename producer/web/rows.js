// A list of any length: only the rows near the screen are elements.
import { h } from "./dom.js";

export const HEIGHT = 72;
const AROUND = 8;
/** Rows before the end at which more of them are wanted. */
const EARLY = 40;

/**
 * Rows of one height in the page's own scroll. `make(item)` gives {element, update(item)}; `more()`
 * is called when the end comes near.
 */
export function rows({ label, make, more, signal }) {
  const element = h("ul.rows", { ariaLabel: label });
  const made = new Map();
  let items = [];
  let asked = 0;

  /** Indexes of the rows on the screen, and so many around them. */
  function near(around = 0) {
    const { top } = element.getBoundingClientRect();
    const first = Math.floor(-top / HEIGHT) - around;
    const end = Math.ceil((innerHeight - top) / HEIGHT) + around;
    return [Math.min(items.length, Math.max(0, first)), Math.min(items.length, Math.max(0, end))];
  }

  function draw() {
    const [first, end] = near(AROUND);
    const seen = new Set(items.slice(first, end).map(({ id }) => id));
    for (const [id, { line }] of made) {
      if (seen.has(id) || line.contains(document.activeElement)) continue;
      line.remove();
      made.delete(id);
    }
    let next = element.firstChild;
    for (let index = first; index < end; index++) {
      const { line } = place(items[index], index);
      // In the order of the list, so that the tab key follows it.
      if (line === next) next = next.nextSibling;
      else element.insertBefore(line, next);
    }
    if (end >= items.length - EARLY) more();
  }

  function place(item, index) {
    if (!made.has(item.id)) {
      const row = make(item);
      made.set(item.id, { ...row, line: h("li", {}, row.element) });
    }
    const row = made.get(item.id);
    row.update(item);
    row.line.style.transform = `translateY(${index * HEIGHT}px)`;
    row.line.setAttribute("aria-posinset", index + 1);
    row.line.setAttribute("aria-setsize", -1);
    return row;
  }

  function schedule() {
    cancelAnimationFrame(asked);
    asked = requestAnimationFrame(draw);
  }

  addEventListener("scroll", schedule, { signal, passive: true });
  addEventListener("resize", schedule, { signal });

  return {
    element,
    near,
    redraw: schedule,
    set(next) {
      items = next;
      element.style.height = `${items.length * HEIGHT}px`;
      schedule();
    },
  };
}
