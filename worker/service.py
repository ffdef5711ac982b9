"""One worker process: a pinned device, its slots, and the Celery consumer that fills them."""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Sequence

from celery import Celery
from celery.signals import worker_ready, worker_shutting_down

from storage.broker import celery_app, invite
from storage.errors import NotConfigured, Unavailable, WorkerLost
from storage.jobs import Claim, Worker
from storage.ledger import Ledger
from storage.models import find_model, load_models
from storage.objects import Objects
from storage.repeat import Repeat
from storage.schedules import Schedules
from storage.settings import Settings, require
from storage.webhooks import Webhooks
from worker.consumer import consume
from worker.device import Device
from worker.device_loop import DeviceLoop
from worker.firing import Firer
from worker.housekeeping import keep_house, make_room, renew_leases, report_progress
from worker.limits import Limits
from worker.live import EVERY, show_running
from worker.room import Room
from worker.runner import Runner, Running, Stopping
from worker.submissions import Clerk
from worker.warming import warm

logger = logging.getLogger(__name__)

#: Seconds between two reports of what runs.
PROGRESS_EVERY = 0.3


class Slots:
    """The jobs in flight in this process: one for each Celery thread that has work."""

    def __init__(
        self, runner: Runner, app: Celery, *, worker: str, pool: str, limits: Limits
    ) -> None:
        self._runner, self._app = runner, app
        self._worker, self._pool, self._limits = worker, pool, limits
        self._ended = 0
        self._claiming = threading.Lock()
        self._changed = threading.Condition()
        #: By job and attempt: one that lost its lease may still be here when the next begins.
        self._running: dict[tuple[str, int], Running] = {}
        #: Takes nothing more; and leaves as soon as nothing runs.
        self._stopping = self._leaving = False

    def work(self) -> None:
        """Answer an invitation: take the best job there is, run it, and pass the word on."""
        try:
            more = self._run_one() and self._runner.ledger.due(self._pool)
            if more and not self._stopping:
                invite(self._app, self._pool)
        except Unavailable as error:
            # Nothing is lost: housekeeping invites again when the servers are back.
            logger.error("invitation not answered: %s", error)

    def _run_one(self) -> bool:
        # One at a time: while a suspect runs here, nothing else is taken.
        with self._claiming:
            if self._stopping:
                return False
            with self._runner.loop.meter.timing("claim"):
                claim = self._runner.ledger.claim(
                    worker=self._worker,
                    pool=self._pool,
                    lease_seconds=self._runner.settings.lease_seconds,
                    prefer=self._at_hand(),
                )
            if claim is None:
                return False
            running = self._enter(claim)
            if self._is_suspect(claim):
                with self._changed:
                    self._changed.wait_for(lambda: len(self._running) == 1)
                self._run(running)
                return True
        self._run(running)
        return True

    def _run(self, running: Running) -> None:
        try:
            self._runner.run(running)
        finally:
            self._exit(running.claim)

    def _is_suspect(self, claim: Claim) -> bool:
        """Whether its last worker vanished. It may have been the reason: now it runs alone, so
        that a job that kills its process takes no neighbour along twice."""
        if claim.attempt == 1:
            return False
        try:
            before = self._runner.ledger.job(claim.job_id).attempts[-2]
        except Unavailable:
            return True
        return before.error_code == WorkerLost.code

    def _at_hand(self) -> tuple[str, ...]:
        """Models that are loaded, or will be for what runs here."""
        wanted = (job.claim.spec.steps[job.index].model for job in self.running())
        return tuple(dict.fromkeys([*self._runner.loop.loaded, *wanted]))

    def running(self) -> list[Running]:
        with self._changed:
            return list(self._running.values())

    def stop(self) -> None:
        """Take nothing more; what runs leaves at its next step boundary and goes back."""
        with self._changed:
            self._stopping = True
            jobs = list(self._running.values())
        for job in jobs:
            job.stop(Stopping("the worker stops"))

    def _enter(self, claim: Claim) -> Running:
        running = Running(claim)
        with self._changed:
            self._running[claim.job_id, claim.attempt] = running
            if self._stopping:
                running.stop(Stopping("the worker stops"))
        return running

    def _exit(self, claim: Claim) -> None:
        """A job has ended here. Past its limits, a worker leaves once nothing runs."""
        with self._changed:
            del self._running[claim.job_id, claim.attempt]
            self._changed.notify_all()
            self._ended += 1
            why = None if self._stopping else self._limits.reached(self._ended)
            if why is not None:
                logger.info("%s: time for a fresh process", why)
                self._stopping = self._leaving = True
            if self._leaving and not self._running:
                os.kill(os.getpid(), signal.SIGTERM)


def healthy(settings: Settings) -> bool:
    """Whether a worker of this host has reported lately: for container health checks."""
    ledger = Ledger.open(require(settings, "database_url"))
    host = f"{socket.gethostname()}-"
    return any(w.name.startswith(host) for w in ledger.workers())


def serve(
    settings: Settings,
    device: Device,
    *,
    slots: int,
    pool: str,
    limits: Limits,
    warmed: Sequence[str] = (),
) -> None:
    """Run a worker until it is told to stop (SIGTERM, SIGINT), or past its limits.

    Models named in `warmed` are ready before the first job is taken. Raises NotConfigured or
    Unavailable when a part that it needs is not there, and what ends a job that such a model fails.
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
    models = load_models(settings)
    warmed_models = [find_model(models, alias, settings) for alias in warmed]
    loop = DeviceLoop(
        device, Room(settings.home, str(device)), settings.model_memory, settings.graphs_dir
    )
    loop.start()
    warm(loop, warmed_models)

    name = f"{socket.gethostname()}-{device}-{os.getpid()}"
    runner = Runner(settings, ledger, objects, models, loop)
    crew = Slots(runner, app, worker=name, pool=pool, limits=limits)

    begun = time.time()

    def me() -> Worker:
        return Worker(
            name=name, device=str(device), pool=pool, slots=slots,
            loaded=loop.loaded, started_at=begun, seen_at=0.0,
            figures={"running": len(crew.running()), **loop.figures()},
        )  # fmt: skip

    leases = Repeat(
        "leases", settings.renew_seconds, lambda: renew_leases(ledger, crew.running, settings)
    )
    clerk = Clerk(
        settings=settings, ledger=ledger, objects=objects, models=models, app=app, name=name
    )
    submissions = Repeat("submissions", 0.05, clerk.work, after_trouble=settings.poll_seconds)

    progress = Repeat("progress", PROGRESS_EVERY, lambda: report_progress(ledger, crew.running()))
    live = Repeat("live", EVERY, lambda: show_running(app, crew.running()))

    def keep() -> None:
        loop.expect(ledger.demand(pool))
        make_room(ledger, pool, slots, crew.running())
        keep_house(ledger, objects, app, me())

    house = Repeat("housekeeping", settings.poll_seconds, keep)
    firer = Firer(Schedules.open(require(settings, "database_url")), name)
    schedules = Repeat("schedules", settings.poll_seconds, firer.look)

    webhooks = Repeat("webhooks", settings.poll_seconds, Webhooks(ledger, settings).work)

    def on_ready(**_: object) -> None:
        leases.start()
        house.start()
        schedules.start()
        submissions.start()
        progress.start()
        live.start()
        webhooks.start()
        logger.info("ready: %s, %d slots, pool %s", name, slots, pool)

    def on_stop(**_: object) -> None:
        crew.stop()

    worker_ready.connect(on_ready)
    worker_shutting_down.connect(on_stop)
    try:
        consume(redis_url, crew.work, name=name, slots=slots, pool=pool)
    finally:
        live.stop()
        progress.stop()
        submissions.stop()
        webhooks.stop()
        schedules.stop()
        firer.stop()
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
