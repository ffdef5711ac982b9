"""`up`, `worker` and `migrate`: what runs, rather than what is asked for."""

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from producer.commands.output import AsJson, out, print_json, say
from producer.commands.page import PORT, environment, running_page
from storage.errors import NotConfigured, Unavailable
from storage.ledger import Ledger
from storage.objects import Objects
from storage.settings import Settings, load_settings, require

#: Seconds until a worker that was just started must have reported itself.
WORKER_START = 60.0
#: Jobs in flight at once: their rows share calls, and while some are stored others are stepped.
SLOTS = 16
#: Without -P, a worker.py in the user's folder would be run instead.
WORKER = (sys.executable, "-P", "-m", "worker")


def up(
    device: Annotated[str, typer.Option(help="The worker's device: cpu or ascend:N.")] = "cpu",
    slots: Annotated[int, typer.Option(min=1, help="Jobs in flight at once.")] = SLOTS,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="The page's port; another if it is taken.")
    ] = PORT,
    as_json: AsJson = False,
) -> None:
    """Run everything on this machine: broker, object store, database, one worker, the web page."""
    with (
        running_mill(load_settings().home, device, slots) as (settings, process),
        running_page(settings, port) as page,
    ):
        parts = {
            "home": str(settings.home),
            "broker": require(settings, "redis_url"),
            "objects": f"{settings.s3_endpoint_url}, bucket {settings.s3_bucket}",
            "ledger": require(settings, "database_url"),
            "page": page or "needs packages that are not here: pip install 'latentmill[api]'",
            "worker": f"{device}, {slots} slots; log: {settings.home / 'logs' / 'worker.log'}",
        }
        if as_json:
            print_json(parts)
        for name, what in parts.items():
            say(f"{name:<9} {what}", quiet=as_json)
        say("Ready. Ctrl-C stops it all; queued jobs stay.", quiet=as_json)
        try:
            status = process.wait()
        except KeyboardInterrupt:
            say("Stopping: running jobs leave at a step and stay queued.", quiet=as_json)
            return
        raise Unavailable(f"the worker ended with status {status}: see logs/worker.log")


@contextmanager
def running_mill(
    home: Path, device: str = "cpu", slots: int = SLOTS
) -> Iterator[tuple[Settings, "subprocess.Popen[bytes]"]]:
    """The embedded stack with one worker that is ready; all of it ends with the block."""
    from storage.embedded.process import running_process
    from storage.embedded.stack import running_stack

    require_worker()
    with running_stack(home) as settings:
        ledger = Ledger.open(require(settings, "database_url"))
        log = settings.home / "logs" / "worker.log"
        command = [*WORKER, "--device", device, "--slots", str(slots)]
        env = environment(settings.home)
        begun = time.time()
        try:
            with running_process(command, log, env) as process:
                while not any(w.started_at >= begun for w in ledger.workers(WORKER_START)):
                    if process.poll() is not None:
                        raise Unavailable(f"the worker did not start: {_last_line(log)}")
                    if time.time() > begun + WORKER_START:
                        raise Unavailable(f"the worker is not ready: see {log}")
                    time.sleep(0.1)
                yield settings, process
        finally:
            ledger.close()


def worker(context: typer.Context) -> None:
    """Run a worker for each device: see `latentmill worker --help`."""
    require_worker()
    os.execv(sys.executable, [*WORKER, *context.args])


def migrate(as_json: AsJson = False) -> None:
    """Bring the database's tables to this version, and make the bucket if there is none."""
    settings = load_settings()
    ledger = Ledger.open(require(settings, "database_url"))
    before, wanted = ledger.schema()
    ledger.upgrade()
    Objects.open(settings).ensure_bucket()
    if as_json:
        print_json({"revision": wanted, "before": before})
        return
    what = "is up to date" if before == wanted else f"went from {before or 'nothing'} to {wanted}"
    out.print(f"The database {what}; the bucket is there.", highlight=False)


def require_worker() -> None:
    """Raises NotConfigured where there is no engine."""
    if importlib.util.find_spec("mindspore") is None:
        raise NotConfigured(
            "workers need MindSpore, which is not installed: pip install 'latentmill[worker]'"
        )


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
