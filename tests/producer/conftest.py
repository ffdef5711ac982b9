"""A client on real servers, the command line in this process, and a hand that works as a worker."""

import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from producer import Client
from producer.cli import main
from storage.jobs import Claim, Job, State, StepRecord
from storage.ledger import Ledger
from storage.objects import Objects, result_key
from storage.settings import PREFIX, Settings, require


@pytest.fixture
def settings(
    _sqlite_template: Path, tmp_path: Path, redis_url: str, s3: dict[str, str]
) -> Settings:
    """An empty ledger and an empty broker."""
    file = tmp_path / "ledger.sqlite3"
    file.write_bytes(_sqlite_template.read_bytes())
    values = {"database_url": f"sqlite:///{file}", "redis_url": redis_url, **s3}
    return Settings.model_validate({**values, "home": tmp_path / "home"})


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    opened = Client(settings)
    yield opened
    opened.ledger.close()


@dataclass(frozen=True)
class Hand:
    """Does by hand what a worker does to the ledger and the bucket."""

    ledger: Ledger
    objects: Objects

    def claim(self) -> Claim:
        claim = self.ledger.claim(worker="by-hand", pool="default", lease_seconds=60)
        assert claim is not None
        return claim

    def finish_step(self, claim: Claim, index: int, *warnings: str, color: str = "red") -> None:
        picture = io.BytesIO()
        Image.new("RGB", (16, 16), color).save(picture, "PNG")
        steps = len(claim.spec.steps)
        key = result_key(claim.job_id, index, steps)
        self.objects.put(key, picture.getvalue(), "image/png")
        kept = index == steps - 1 or claim.spec.keep_steps
        self.ledger.finish_step(
            claim,
            StepRecord(
                index=index,
                artifact=key if kept else None,
                details={"seconds": 1.5, "warnings": list(warnings)},
            ),
        )

    def succeed(self, *warnings: str) -> Job:
        """Take the next job, and bring it to its end."""
        claim = self.claim()
        for index in range(len(claim.spec.steps)):
            color = ("red", "lime", "blue")[index]
            self.finish_step(claim, index, *warnings, color=color)
        self.ledger.succeed(claim)
        return self.ledger.job(claim.job_id)

    def fail(self, code: str = "invalid_model", message: str = "it has no weights") -> Job:
        claim = self.claim()
        state = self.ledger.fail(claim, code=code, message=message, retry_in=None)
        assert state is State.FAILED
        return self.ledger.job(claim.job_id)


@pytest.fixture
def hand(client: Client) -> Hand:
    return Hand(client.ledger, client.objects)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "cat.png"
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save(file)
    return file


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line where no service is configured."""

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["latentmill", *map(str, arguments)])
        capsys.readouterr()
        status: object = 0
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
        assert isinstance(status, int)
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return Ended(status, said.out, said.err)

    return run


@pytest.fixture
def run(unset: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """The command line with its services, in an empty folder."""
    for name in ("database_url", "redis_url", "s3_endpoint_url", "s3_bucket", "s3_access_key",
                 "s3_secret_key", "home"):  # fmt: skip
        monkeypatch.setenv(PREFIX + name.upper(), require(settings, name))
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return unset
