"""`latentmill up`, and a job over HTTP from its key to its picture."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
from PIL import Image

from producer.commands.page import KEY_FILE
from tests.acceptance.test_demo import processes_of
from tests.producer.api.test_events import messages

APPLE = Path(__file__).parents[2] / "producer" / "samples" / "red-apple.png"
STEP = {"kind": "img2img", "model": "demo", "prompt": "a green apple", "strength": 0.6, "seed": 7}


def test_a_job_over_http_runs_on_a_real_worker(tmp_path: Path) -> None:
    home = tmp_path / "home"
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "producer", "up", "--json", "--slots", "2"],
        env={**os.environ, "LATENTMILL_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        base, _, key = json.loads(process.stdout.readline())["page"].partition("/#key=")
        assert key == (home / KEY_FILE).read_text()
        headers = {"Authorization": f"Bearer {key}"}
        with httpx2.Client(base_url=base, headers=headers, timeout=150) as web:
            form = {"spec": json.dumps({"steps": [STEP]})}
            files = {"image": APPLE.read_bytes()}
            job = web.post("/v1/jobs", data=form, files=files).json()
            with web.stream("GET", job["events_url"]) as told:
                seen = [message["event"] for message in messages(told.iter_lines())]
            assert [kind for kind in seen if kind != "progress"] == [
                "queued", "running", "step", "succeeded",
            ]  # fmt: skip
            assert "progress" in seen
            result = web.get(job["result_url"], params={"redirect": "false"})
            picture = Image.open(io.BytesIO(result.content))
            assert picture.size == (64, 64)
            assert json.loads(picture.text["latentmill"])["spec"]["steps"][0]["seed"] == 7  # type: ignore[attr-defined]
            assert 'latentmill_jobs{state="succeeded"} 1.0' in web.get("/metrics").text
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert processes_of(home) == []
