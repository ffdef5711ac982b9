"""One worker process: a pinned device, its slots, and the Celery consumer that fills them."""

import logging
import os
import socket
import threading
import time

from celery import Celery
from celery.signals import worker_ready, worker_shutting_down

from storage.broker import celery_app, invite
from storage.errors import NotConfigured, Unavailable
from storage.jobs import Claim, Worker
from storage.ledger import Ledger
from storage.models import load_models
from storage.objects import Objects
from storage.settings import Settings, require
from worker.consumer import consume
from worker.device import Device
from worker.device_loop import DeviceLoop
from worker.housekeeping import Repeat, keep_house, renew_leases
from worker.runner import Runner, Running, Stopping

logger = logging.getLogger(__name__)


class Slots:
    """The jobs in flight in this process: one for each Celery thread that has work."""

    def __init__(self, runner: Runner, app: Celery, *, worker: str, pool: str) -> None:
        self._runner, self._app = runner, app
        self._worker, self._pool = worker, pool
        self._lock = threading.Lock()
        self._running: dict[str, Running] = {}
        self._stopping = False

    def work(self) -> None:
        """Answer an invitation: take the best job there is, run it, and pass the word on."""
        try:
            more = not self._stopping and self._run_one() and self._runner.ledger.due(self._pool)
            if more and not self._stopping:
                invite(self._app, self._pool)
        except Unavailable as error:
            # Nothing is lost: housekeeping invites again when the servers are back.
            logger.error("invitation not answered: %s", error)

    def _run_one(self) -> bool:
        claim = self._runner.ledger.claim(
            worker=self._worker, pool=self._pool, lease_seconds=self._runner.settings.lease_seconds
        )
        if claim is None:
            return False
        running = self._enter(claim)
        try:
            self._runner.run(running)
        finally:
            with self._lock:
                del self._running[claim.job_id]
        return True

    def running(self) -> list[Running]:
        with self._lock:
            return list(self._running.values())

    def stop(self) -> None:
        """Take nothing more; what runs leaves at its next step boundary and goes back."""
        with self._lock:
            self._stopping = True
            jobs = list(self._running.values())
        for job in jobs:
            job.stop(Stopping("the worker stops"))

    def _enter(self, claim: Claim) -> Running:
        running = Running(claim)
        with self._lock:
            self._running[claim.job_id] = running
            if self._stopping:
                running.stop(Stopping("the worker stops"))
        return running


def healthy(settings: Settings) -> bool:
    """Whether a worker of this host has reported lately: for container health checks."""
    ledger = Ledger.open(require(settings, "database_url"))
    host = f"{socket.gethostname()}-"
    return any(w.name.startswith(host) for w in ledger.workers())


def serve(settings: Settings, device: Device, *, slots: int, pool: str) -> None:
    """Run a worker until it is told to stop (SIGTERM, SIGINT).

    Raises NotConfigured or Unavailable when a part that it needs is not there.
    """
    ledger = Ledger.open(require(settings, "database_url"))
    found, wanted = ledger.schema()
    if found != wanted:
        raise NotConfigured(
            f"the database is at revision {found or 'none'}, this version needs {wanted}:"
            " run `latentmill migrate`"
        )
    objects = Objects.open(settings)
    objects.check()
    redis_url = require(settings, "redis_url")
    app = celery_app(redis_url)
    loop = DeviceLoop(device)
    loop.start()

    name = f"{socket.gethostname()}-{device}-{os.getpid()}"
    runner = Runner(settings, ledger, objects, load_models(settings), loop)
    crew = Slots(runner, app, worker=name, pool=pool)

    begun = time.time()

    def me() -> Worker:
        return Worker(
            name=name, device=str(device), pool=pool, slots=slots,
            loaded=loop.loaded, started_at=begun, seen_at=0.0,
        )  # fmt: skip

    leases = Repeat(
        "leases", settings.renew_seconds, lambda: renew_leases(ledger, crew.running, settings)
    )
    house = Repeat("housekeeping", settings.poll_seconds, lambda: keep_house(ledger, app, me()))

    def on_ready(**_: object) -> None:
        leases.start()
        house.start()
        logger.info("ready: %s, %d slots, pool %s", name, slots, pool)

    def on_stop(**_: object) -> None:
        crew.stop()

    worker_ready.connect(on_ready)
    worker_shutting_down.connect(on_stop)
    try:
        consume(redis_url, crew.work, name=name, slots=slots, pool=pool)
    finally:
        house.stop()
        leases.stop()
        loop.stop()
        _leave(ledger, app, name, pool)


def _leave(ledger: Ledger, app: Celery, name: str, pool: str) -> None:
    """Sign off, and leave word for others that there is work."""
    try:
        ledger.forget_worker(name)
        if ledger.due(pool):
            invite(app, pool)
    except Unavailable as error:
        logger.warning("signing off: %s", error)
