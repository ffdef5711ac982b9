// Elements without markup strings: nothing that a job says can become HTML.

/** An element: h("a.plain", {href: "#/jobs"}, "Jobs"). Functions are listeners, null is left out. */
export function h(name, props = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(key.replace(/^on/, ""), value);
    else if (key in element && !["list", "form"].includes(key)) element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  put(element, ...children);
  return element;
}

/** Append what is there: elements, texts, and lists of them. */
function put(element, ...children) {
  element.append(...children.flat(Infinity).filter((child) => child || child === 0));
  return element;
}

/** Replace all children. */
export function fill(element, ...children) {
  element.replaceChildren();
  return put(element, ...children);
}

/** Set a text only where it changed, so that nothing flickers and selections last. */
export function setText(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

/** Tell what happened to whoever listens to the page. */
export function say(sentence) {
  document.querySelector("#said").textContent = sentence;
}

export function sleep(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
