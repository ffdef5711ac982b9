"""`latentmill worker --devices …`: a real worker under its supervisor."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.acceptance.conftest import PATIENCE, Mill

LATENTMILL = Path(sys.executable).parent / "latentmill"


def test_a_worker_leaves_after_its_jobs_is_replaced_when_killed_and_stops_in_order(
    mill: Mill,
) -> None:
    env = {**os.environ, "LATENTMILL_HOME": str(mill.home)}
    log = mill.home / "supervisor.log"
    with log.open("wb") as file:
        supervisor = subprocess.Popen(
            [LATENTMILL, "worker", "--devices", "cpu", "--max-jobs", "1"], env=env, stderr=file
        )
    try:
        # A job that fails at once will do: what counts is that it has ended.
        job = mill.wait(mill.submit({"kind": "text2img", "prompt": "", "model": "nobody"}))
        said(log, "1 jobs are done: time for a fresh process")
        said(log, "its process left between two jobs; the next one starts")
        said(log, "ready: ", times=2)
        (worker,) = mill.ledger.workers()
        assert worker.name != job.attempts[0].worker

        os.kill(int(worker.name.rpartition("-")[2]), signal.SIGKILL)
        said(log, "cpu: died (SIGKILL); again in 1 s")
        said(log, "ready: ", times=3)
        supervisor.terminate()
        assert supervisor.wait(30) == 0, log.read_text()[-3000:]
    finally:
        if supervisor.poll() is None:
            supervisor.kill()
            supervisor.wait()


def said(log: Path, what: str, times: int = 1) -> None:
    deadline = time.monotonic() + PATIENCE
    while log.read_text().count(what) < times:
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.1)
