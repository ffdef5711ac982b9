// Pictures that need the key: fetched with it, shown from memory.
import { request } from "./api.js";
import { h } from "./dom.js";

const near = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      show(target, target.dataset.from).catch(() => {}); // its place stays empty
    }
  },
  { rootMargin: "200px" },
);

/** An image that is fetched when it comes near the screen. */
export function picture(path, alt, props = {}) {
  const image = h("img", { alt, decoding: "async", ...props });
  image.dataset.from = path;
  near.observe(image);
  return image;
}

/** Show what a path holds now; the picture that is there stays until the new one is decoded. */
export async function show(image, path, signal) {
  const answer = await request(path, { signal });
  if (answer.status === 204) return false;
  await showBlob(image, await answer.blob());
  return true;
}

export async function showBlob(image, blob) {
  const url = URL.createObjectURL(blob);
  try {
    await change(image, url);
  } finally {
    URL.revokeObjectURL(url);
  }
}

/** Change what an image shows, once that is decoded. */
export async function change(image, url) {
  const next = new Image();
  next.src = url;
  await next.decode();
  image.src = url;
  await image.decode().catch(() => {});
  image.classList.toggle("tiny", image.naturalWidth <= 128);
  image.classList.add("shown");
}
