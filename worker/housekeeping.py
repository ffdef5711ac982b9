"""What every worker does beside its jobs: keep leases, take up what was lost, tidy, invite.

Two threads: leases must be renewed in time whatever else is slow.
"""

import logging
from collections.abc import Callable

from celery import Celery

from storage.broker import invite, waiting
from storage.errors import ClaimLost
from storage.jobs import Worker
from storage.ledger import Ledger
from storage.objects import Objects
from storage.settings import Settings
from worker import carry
from worker.runner import Running, Stopping

logger = logging.getLogger(__name__)


def renew_leases(ledger: Ledger, running: Callable[[], list[Running]], settings: Settings) -> None:
    """Keep what runs here; what another worker has taken over, or nobody wants, leaves."""
    for job in running():
        try:
            reason = ledger.renew(job.claim, settings.lease_seconds)
        except ClaimLost as error:
            reason = error
        if reason is not None:
            job.stop(reason)


def report_progress(ledger: Ledger, running: list[Running]) -> None:
    """Tell the ledger how far all that moved has come; what nobody wants any more leaves.

    One transaction for all: on SQLite each waits for the disk, and claims wait for each.
    """
    moved = []
    for job in running:
        watch = job.watch
        place = watch.step, watch.done, watch.total
        if watch.total and place != job.told:
            moved.append((job, place))
    if not moved:
        return
    reasons = ledger.progress([(job.claim, *place) for job, place in moved])
    for (job, place), reason in zip(moved, reasons, strict=True):
        job.told = place
        if reason is not None:
            job.stop(reason)


def make_room(ledger: Ledger, pool: str, slots: int, running: list[Running]) -> None:
    """Where no slot is free and a job of higher priority waits, the least important one leaves.

    It loses nothing: it goes back to the queue uncharged, and goes on later where it was.
    """
    leaving = any(job.leave is not None for job in running)
    if leaving or len(running) < slots:
        return
    waiting_for = ledger.highest_priority(pool)
    # Of equals the one that was claimed last.
    least = min(reversed(running), key=lambda job: job.claim.spec.priority)
    if waiting_for is not None and waiting_for > least.claim.spec.priority:
        logger.info("job %s makes room for one of priority %d", least.claim.job_id, waiting_for)
        least.stop(Stopping("a job of higher priority takes its place"))


def keep_house(ledger: Ledger, objects: Objects, app: Celery, worker: Worker) -> None:
    """Report this worker, take expired leases back, and see to it that due work has invitations.

    So neither a lost message nor a broker that forgot everything can leave a job behind. What ended
    jobs left in the bucket is removed last: nothing waits for it.
    """
    ledger.report_worker(worker)
    for job_id in ledger.reap():
        logger.warning("job %s: its worker vanished", job_id)
    if late := ledger.expire():
        logger.warning("%d queued jobs failed: their deadline passed", late)
    missing = min(ledger.due(worker.pool), worker.slots) - waiting(app, worker.pool)
    if missing > 0:
        invite(app, worker.pool, missing)
    for job_id in ledger.littered():
        carry.drop(objects, job_id)
        ledger.tidied([job_id])
