// Times and numbers for people.

const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
const WHEN = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "medium" });
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

/** "3 min. ago", "in 2 hr." */
export function ago(time, now = Date.now()) {
  const seconds = (Date.parse(time) - now) / 1000;
  if (Math.abs(seconds) < 5) return "now";
  const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? UNITS.at(-1);
  return RELATIVE.format(Math.trunc(seconds / size), unit);
}

export function when(time) {
  return WHEN.format(new Date(time));
}

/** "4.2 s", "3 min 10 s", "2 h 5 min" */
export function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

export function between(from, to) {
  return (Date.parse(to) - Date.parse(from)) / 1000;
}

const COUNT = new Intl.NumberFormat("en");

export function count(number) {
  return COUNT.format(number);
}

/** "1 job", "2 jobs" */
export function many(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** An error code as words: "worker_lost" is "worker lost". */
export function words(code) {
  return String(code).replaceAll("_", " ");
}

/** The share of a job that is done, 0..1: every step of a chain counts the same. */
export function share({ state, progress }) {
  if (state === "succeeded") return 1;
  if (!progress.steps) return 0;
  const inside = progress.total ? progress.done / progress.total : 0;
  return Math.min(1, (progress.step + inside) / progress.steps);
}
