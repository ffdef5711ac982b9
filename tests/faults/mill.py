"""A broker, an object store behind a bad proxy, a ledger, and workers without a device."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storage.broker import celery_app, invite
from storage.embedded.valkey import running_valkey
from storage.errors import BrokerUnavailable
from storage.jobs import Job, State
from storage.ledger import Ledger
from storage.spec import Spec, parse_spec
from tests.faults.s3_proxy import Proxy
from tests.processes import pid_of_valkey

PATIENCE = 60.0
ENDED = (State.SUCCEEDED, State.FAILED, State.CANCELED)
#: Short, so that a fault takes seconds.
IMPATIENT = {"LEASE_SECONDS": "3", "RENEW_SECONDS": "0.5", "POLL_SECONDS": "0.3"}
STEP: dict[str, Any] = {
    "kind": "text2img", "model": "demo", "prompt": "a cat", "num_inference_steps": 1, "seed": 1,
}  # fmt: skip


def spec(prompt: str = "a cat", steps: int = 1, **around: Any) -> Spec:
    return parse_spec(
        {"steps": [{**STEP, "prompt": prompt, "num_inference_steps": steps}], **around}
    )


@dataclass
class Broker:
    """A Valkey of its own, to be killed and started again on the same data and socket."""

    folder: Path
    url: str = ""
    _running: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        self._running.close()
        self.url = self._running.enter_context(
            running_valkey(self.folder / "valkey", self.folder / "valkey.log")
        )["redis_url"]

    def kill(self) -> None:
        os.kill(pid_of_valkey(self.folder), signal.SIGKILL)

    def stop(self) -> None:
        self._running.close()


@dataclass
class Mill:
    folder: Path
    ledger_url: str
    broker: Broker
    proxy: Proxy
    s3: dict[str, str]
    workers: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ledger = Ledger.open(self.ledger_url)
        self.app = celery_app(self.broker.url)

    @property
    def env(self) -> dict[str, str]:
        settings = {
            **{name.upper(): value for name, value in self.s3.items()},
            **IMPATIENT,
            "S3_ENDPOINT_URL": self.proxy.url,
            "DATABASE_URL": self.ledger_url,
            "REDIS_URL": self.broker.url,
            "HOME": str(self.folder),
        }
        return {**os.environ, **{f"LATENTMILL_{name}": v for name, v in settings.items()}}

    def start_worker(self, *options: str, wait: bool = True) -> "subprocess.Popen[bytes]":
        number = len(self.workers)
        with (self.folder / f"worker-{number}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.noop_worker", "--device", "cpu", *options],
                env=self.env, stdout=log, stderr=subprocess.STDOUT, cwd=Path(__file__).parents[2],
            )  # fmt: skip
        self.workers.append(process)
        deadline = time.monotonic() + PATIENCE
        while wait and "ready: " not in self.log(process):
            assert process.poll() is None, self.log(process)[-3000:]
            assert time.monotonic() < deadline, self.log(process)[-3000:]
            time.sleep(0.05)
        return process

    def log(self, process: "subprocess.Popen[bytes]") -> str:
        number = self.workers.index(process)
        return (self.folder / f"worker-{number}.log").read_text(errors="replace")

    def submit(self, *specs: Spec) -> list[str]:
        ids = [submitted.id for submitted in self.ledger.submit(specs)]
        with suppress(BrokerUnavailable):  # to a client it is but a warning
            invite(self.app, "default", min(len(ids), 4))
        return ids

    def wait(self, job_id: str, until: Callable[[Job], bool] | None = None) -> Job:
        """The job once it has ended, or once `until` holds of it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            job = self.ledger.job(job_id)
            if until(job) if until else job.state in ENDED:
                return job
            assert time.monotonic() < deadline, f"still {job.state}: {job}"
            time.sleep(0.03)

    def wait_for(self, job_ids: list[str]) -> list[Job]:
        return [self.wait(job_id) for job_id in job_ids]

    def stop(self) -> None:
        for process in self.workers:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.workers:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.ledger.close()


@contextmanager
def running_mill(
    folder: Path, ledger_url: str, broker: Broker, proxy: Proxy, s3: dict[str, str]
) -> Iterator[Mill]:
    mill = Mill(folder, ledger_url, broker, proxy, s3)
    try:
        yield mill
    finally:
        mill.stop()
