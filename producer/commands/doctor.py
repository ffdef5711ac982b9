"""`doctor`: try every part that a job needs, and say how to mend what fails."""

import importlib.util
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from platform import python_version
from typing import Annotated, Literal

import typer

from producer.commands.output import AsJson, out, print_json
from producer.commands.services import WORKER
from storage import broker
from storage.embedded.lock import is_locked
from storage.errors import LatentmillError, NotConfigured, Unavailable
from storage.jobs import State
from storage.ledger import SILENT_AFTER, Ledger
from storage.models import load_models
from storage.objects import Objects
from storage.settings import PREFIX, Settings, load_settings, require

#: Seconds: MindSpore's import and one operator take about 4 on two cores, on Ascend far more.
DEVICE_TIMEOUT = 120.0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What came of trying one part; `mend` says what to do where it failed."""

    part: str
    status: Literal["ok", "skipped", "failed"]
    says: str
    mend: str | None = None


class Skipped(Exception):
    """The part is not there, and this machine may do without it."""


@dataclass(frozen=True)
class Check:
    part: str
    look: Callable[[Settings, str | None], str]
    mend: str
    #: The setting without which there is nothing to try.
    needs: str | None = None


def doctor(
    device: Annotated[
        str | None, typer.Option(help="Try this device: cpu, or ascend:N. Default: cpu.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Try every part that a job needs; exit status 1 if one fails."""
    findings = examine(load_settings(), device)
    if as_json:
        ok = all(finding.status != "failed" for finding in findings)
        print_json({"ok": ok, "checks": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            _print(finding)
    if any(finding.status == "failed" for finding in findings):
        raise typer.Exit(1)


def examine(settings: Settings, device: str | None = None) -> list[Finding]:
    """Try all parts, at the same time: a server that is away takes seconds to be sure of."""

    def look(check: Check) -> Finding:
        try:
            if check.needs is not None:
                require(settings, check.needs)
        except NotConfigured as error:  # it says itself what to do
            return Finding(part=check.part, status="failed", says=str(error))
        try:
            return Finding(part=check.part, status="ok", says=check.look(settings, device))
        except Skipped as reason:
            return Finding(part=check.part, status="skipped", says=str(reason))
        except LatentmillError as error:
            return Finding(part=check.part, status="failed", says=str(error), mend=check.mend)

    with ThreadPoolExecutor(len(CHECKS)) as threads:
        return list(threads.map(look, CHECKS))


def _python(settings: Settings, device: str | None) -> str:
    return python_version()


def _home(settings: Settings, device: str | None) -> str:
    runs = "the embedded stack runs here" if is_locked(settings.home) else "no embedded stack"
    return f"{settings.home} ({runs})"


def _device(settings: Settings, device: str | None) -> str:
    if device is None and importlib.util.find_spec("mindspore") is None:
        raise Skipped("MindSpore is not installed: this machine can submit jobs, not run them")
    command = [*WORKER, "--check", "--device", device or "cpu"]
    try:
        # In a process of its own: the command line needs no MindSpore, and a device may hang.
        tried = subprocess.run(command, capture_output=True, text=True, timeout=DEVICE_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"the device did not answer in {DEVICE_TIMEOUT:g} s") from None
    if tried.returncode:
        raise Unavailable(_last_line(tried.stderr).removeprefix("latentmill worker: "))
    return _last_line(tried.stdout)


def _broker(settings: Settings, device: str | None) -> str:
    app = broker.celery_app(require(settings, "redis_url"))
    broker.check(app)
    refused = sum(broker.refused(app).values())
    return f"answers; {refused} messages were refused so far" if refused else "answers"


def _bucket(settings: Settings, device: str | None) -> str:
    objects = Objects.open(settings)
    objects.check()
    return f"{objects}: an object was written, read and removed"


def _database(settings: Settings, device: str | None) -> str:
    ledger = Ledger.open(require(settings, "database_url"))
    found, wanted = ledger.schema()
    if found is None:
        raise NotConfigured(f"it has no tables; this version needs revision {wanted}")
    if found != wanted:
        raise NotConfigured(f"it is at revision {found}; this version needs {wanted}")
    counts = ledger.counts()
    queued, running = counts[State.QUEUED], counts[State.RUNNING]
    return f"revision {found}; {queued} queued, {running} running"


def _models(settings: Settings, device: str | None) -> str:
    models = load_models(settings)
    package = importlib.util.find_spec("worker")
    shipped = Path(str(package.origin)).parent / "checkpoints" if package else None
    missing = []
    for model in models.values():
        if model.bundled is not None and shipped is not None:
            folder = shipped / model.bundled
            if not (folder / "model_index.json").is_file():
                missing.append(f"{model.alias}: its checkpoint is missing from {folder}")
        elif model.source.startswith(("/", ".", "~")) and not Path(model.source).is_dir():
            missing.append(f"{model.alias}: there is no folder {model.source}")
    if missing:
        raise NotConfigured("; ".join(missing))
    return ", ".join(sorted(models))


def _workers(settings: Settings, device: str | None) -> str:
    workers = Ledger.open(require(settings, "database_url")).workers()
    if not workers:
        raise Unavailable(f"none has reported in the last {SILENT_AFTER:g} s: jobs stay queued")
    return "; ".join(f"{w.name}: {w.device}, pool {w.pool}, {w.slots} slots" for w in workers)


CHECKS = (
    Check("python", _python, ""),
    Check("home", _home, ""),
    Check(
        "device",
        _device,
        "pip install 'latentmill[worker]'; for Ascend also its driver and CANN: docs/ascend.md",
    ),
    Check("broker", _broker, f"start it, or correct {PREFIX}REDIS_URL", "redis_url"),
    Check(
        "bucket",
        _bucket,
        f"`latentmill migrate` makes one that is missing; else correct {PREFIX}S3_…",
        "s3_endpoint_url",
    ),
    Check(
        "database",
        _database,
        f"run `latentmill migrate` for its tables, or correct {PREFIX}DATABASE_URL",
        "database_url",
    ),
    Check("models", _models, "correct models.toml, or install latentmill again"),
    Check("workers", _workers, "start one with `latentmill worker`", "database_url"),
)

_COLORS = {"ok": "green", "skipped": "yellow", "failed": "red"}


def _print(finding: Finding) -> None:
    out.print(f"{finding.status:8}", style=_COLORS[finding.status], end="")
    out.print(f"{finding.part:10}{finding.says}", markup=False, highlight=False, soft_wrap=True)
    if finding.mend:
        out.print(f"{'':18}→ {finding.mend}", markup=False, highlight=False, soft_wrap=True)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it ended without a word"
