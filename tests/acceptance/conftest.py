"""A real stack and real worker processes, with a tiny checkpoint in the published layout."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from PIL import Image

from storage.broker import celery_app, invite
from storage.embedded.stack import running_stack
from storage.jobs import Job, State
from storage.ledger import Ledger
from storage.objects import Objects, input_key
from storage.settings import Settings, require
from storage.spec import parse_spec
from tests.reference.tiny import write_stable_diffusion

#: Seconds. A worker that begins has to compile its models on 2 cores.
PATIENCE = 120.0
ENDED = (State.SUCCEEDED, State.FAILED, State.CANCELED)


@dataclass(frozen=True)
class Mill:
    """The stack as a producer and an onlooker see it."""

    home: Path
    settings: Settings
    ledger: Ledger
    objects: Objects
    app: Celery

    def upload(self, picture: Image.Image) -> str:
        data = io.BytesIO()
        picture.save(data, "PNG")
        key = input_key(data.getvalue(), "png")
        self.objects.put_once(key, data.getvalue(), "image/png")
        return key

    def submit(self, *steps: dict[str, Any], invited: bool = True, **around: Any) -> str:
        known = {"model": "tiny", "num_inference_steps": 6, "seed": 3}
        spec = parse_spec({"steps": [{**known, **step} for step in steps], **around})
        (submitted,) = self.ledger.submit([spec])
        if invited:
            invite(self.app, "default")
        return submitted.id

    def wait(self, job_id: str, until: Callable[[Job], bool] | None = None) -> Job:
        """The job once it has ended, or once `until` holds of it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            job = self.ledger.job(job_id)
            if until(job) if until else job.state in ENDED:
                return job
            assert time.monotonic() < deadline, f"still {job.state} after {PATIENCE} s: {job}"
            assert until is None or job.state not in ENDED, f"ended too early: {job}"
            time.sleep(0.05)

    def picture(self, key: str | None) -> Image.Image:
        assert key is not None
        picture = Image.open(io.BytesIO(self.objects.get(key)))
        picture.load()
        return picture

    @contextmanager
    def worker(self, **settings: object) -> Iterator[subprocess.Popen[bytes]]:
        """A worker process that has reported itself; killed if it does not end by itself."""
        env = {f"LATENTMILL_{name.upper()}": str(value) for name, value in settings.items()}
        env |= {"LATENTMILL_HOME": str(self.home)}
        before = {worker.name for worker in self.ledger.workers(seen_within=3600)}
        with (self.home / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "worker", "--device", "cpu", "--slots", "2"],
                env={**os.environ, **env},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            deadline = time.monotonic() + PATIENCE
            while {worker.name for worker in self.ledger.workers(seen_within=3600)} <= before:
                assert process.poll() is None, (self.home / "worker.log").read_text()[-3000:]
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@pytest.fixture(scope="session")
def mill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mill]:
    home = tmp_path_factory.mktemp("mill")
    tiny, other = (write_stable_diffusion(home / name) for name in ("tiny", "other"))
    # One number of difference makes another VAE.
    config = other / "vae" / "config.json"
    config.write_text(config.read_text().replace('"sample_size": 64', '"scaling_factor": 0.5'))
    (home / "broken").mkdir()
    (home / "models.toml").write_text(
        "".join(
            f'[{name}]\nsource = "{home / name}"\n' for name in (tiny.name, other.name, "broken")
        )
    )
    with running_stack(home) as settings:
        ledger = Ledger.open(require(settings, "database_url"))
        yield Mill(
            home=home,
            settings=settings,
            ledger=ledger,
            objects=Objects.open(settings),
            app=celery_app(require(settings, "redis_url")),
        )
        ledger.close()


@pytest.fixture(scope="module")
def worker(mill: Mill) -> Iterator[subprocess.Popen[bytes]]:
    with mill.worker() as process:
        yield process


@pytest.fixture(scope="session")
def gradient() -> Image.Image:
    return Image.merge("RGB", [Image.linear_gradient("L").resize((64, 64))] * 3).rotate(30)
