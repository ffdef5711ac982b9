"""The page's list of 100,000 jobs: how soon it is there, and how smoothly it scrolls.

Run from the repository root: `python -m benchmarks.page`. Prints JSON.
"""

import json
import tempfile
import time
from pathlib import Path

from producer import Client
from producer.commands.page import PORT, running_page
from storage.embedded.stack import running_stack
from storage.spec import parse_spec
from tests.producer.web.browser import running_browser

JOBS = 100_000
#: Seconds of scrolling to the end of what is there, again and again.
SCROLLED = 60.0
STEP = {"kind": "text2img", "model": "demo", "prompt": "one of many"}
#: Keeps how long each frame took, in milliseconds.
FRAMES = """() => {
  window.frames_ = [];
  let last = performance.now();
  const frame = (now) => { frames_.push(now - last); last = now; requestAnimationFrame(frame); };
  requestAnimationFrame(frame);
}"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, running_stack(Path(folder) / "mill") as settings:
        specs = (parse_spec({"steps": [{**STEP, "seed": seed}]}) for seed in range(JOBS))
        Client(settings).ledger.submit(specs, pool="nobody")
        with running_page(settings, PORT) as url:
            print(json.dumps({"jobs": JOBS, **watched(f"{url}&/jobs")}))


def watched(url: str) -> dict[str, float]:
    with running_browser() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        begun = time.perf_counter()
        page.goto(url)
        page.wait_for_selector(".rows a")
        shown = time.perf_counter() - begun
        page.evaluate(FRAMES)
        until = time.perf_counter() + SCROLLED
        while time.perf_counter() < until:
            page.evaluate("scrollTo(0, document.body.scrollHeight)")
            page.wait_for_timeout(30)
        frames = sorted(page.evaluate("frames_"))
        memory = page.context.new_cdp_session(page)
        memory.send("HeapProfiler.collectGarbage")
        return {
            "shown_after_seconds": round(shown, 2),
            "rows_scrolled": page.evaluate("document.querySelector('.rows').offsetHeight / 72"),
            "rows_as_elements": page.locator(".rows li").count(),
            "frame_ms_median": round(frames[len(frames) // 2], 1),
            "frame_ms_p99": round(frames[len(frames) * 99 // 100], 1),
            "heap_mb": round(memory.send("Runtime.getHeapUsage")["usedSize"] / 1e6, 1),
        }


if __name__ == "__main__":
    main()
