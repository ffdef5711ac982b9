// The frame: which view is shown, what it may ask for, and how its failures are told.
import { Problem, every, get, setKey, takeKey } from "./api.js";
import { fill, h, setText } from "./dom.js";
import { count } from "./format.js";
import { batches } from "./views/batches.js";
import { batch } from "./views/batch.js";
import { job } from "./views/job.js";
import { jobs } from "./views/jobs.js";
import { schedules } from "./views/schedules.js";
import { submit } from "./views/submit.js";
import { workers } from "./views/workers.js";

/** Views by the first part of the address; one with an argument shows one thing. */
const VIEWS = {
  submit: { title: "Submit", show: submit },
  jobs: { title: "Jobs", show: jobs, one: job },
  batches: { title: "Batches", show: batches, one: batch },
  workers: { title: "Workers", show: workers },
  schedules: { title: "Schedules", show: schedules },
};

const main = document.querySelector("#view");
let shown = new AbortController();

async function route() {
  takeKey();
  const [path, search] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, argument] = path.split("/").map(decodeURIComponent);
  if (name === "view") return; // the link that skips to the content
  const view = VIEWS[name] ?? VIEWS.submit;
  shown.abort();
  shown = new AbortController();
  const { signal } = shown;
  document.title = `${view.title} · latentmill`;
  for (const link of document.querySelectorAll("#nav a")) {
    const here = link.hash === `#/${VIEWS[name] ? name : "submit"}`;
    here ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  }
  const root = h("div");
  try {
    await (argument && view.one ? view.one : view.show)(root, {
      id: argument, search: new URLSearchParams(search), signal,
    });
  } catch (error) {
    if (signal.aborted) return;
    fill(root, failure(error));
  }
  if (signal.aborted) return;
  const held = likeFocused();
  fill(main, root);
  scrollTo(0, 0);
  if (document.activeElement === document.body) (main.querySelector(held) ?? main).focus({ preventScroll: true });
}

/** How the field that has the focus is found again in a view that replaces its own. */
function likeFocused() {
  const { name, type, value } = document.activeElement;
  if (!name) return "#none";
  return `[name="${name}"]${type === "radio" ? `[value="${value}"]` : ""}`;
}

function failure(error) {
  if (!(error instanceof Problem)) throw error;
  if (error.status === 401) return askForKey(error);
  return h("div.empty", {}, h("h2", {}, error.status === 404 ? "Not found" : "That did not work"), h("p", { role: "alert" }, error.message));
}

function askForKey(error) {
  const field = h("input", { id: "key", type: "password", autocomplete: "off", required: true });
  return h("form.card.stack", {
    onsubmit: (event) => {
      event.preventDefault();
      setKey(field.value.trim());
      route();
    },
  },
  h("h1", {}, "This server asks for a key"),
  h("p", { role: "alert" }, error.message),
  h("div.field", {}, h("label", { htmlFor: "key" }, "API key"), field),
  h("button.main", {}, "Open the page"));
}

async function tellNow() {
  const now = document.querySelector("#now");
  try {
    const { running, queued } = await get("/v1/counts");
    setText(now, `${count(running)} running · ${count(queued)} queued`);
  } catch (error) {
    setText(now, error.status === 401 ? "" : error.message);
  }
}

// What a view starts by a click fails here, in words.
addEventListener("unhandledrejection", (event) => {
  if (event.reason?.name === "AbortError") return event.preventDefault();
  if (!(event.reason instanceof Problem)) return;
  event.preventDefault();
  main.querySelector(".wrong.passing")?.remove();
  main.firstElementChild?.prepend(h("p.wrong.passing", { role: "alert" }, event.reason.message));
});

takeKey();
fill(document.querySelector("#nav"), Object.entries(VIEWS).map(([name, { title }]) => h("a", { href: `#/${name}` }, title)));
addEventListener("hashchange", route);
route();
tellNow();
every(4000, new AbortController().signal, tellNow);
