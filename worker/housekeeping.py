"""What every worker does beside its jobs: keep leases, take up what was lost, invite for due work.

Two threads: leases must be renewed in time whatever else is slow.
"""

import logging
import threading
from collections.abc import Callable

from celery import Celery

from storage.broker import invite, waiting
from storage.errors import ClaimLost, Unavailable
from storage.jobs import Worker
from storage.ledger import Ledger
from storage.settings import Settings
from worker.runner import Running

logger = logging.getLogger(__name__)


class Repeat:
    """Calls a function every so many seconds in a thread of its own, until stopped.

    What may pass (a server away) is logged once when it begins and once when it ends.
    """

    def __init__(self, name: str, seconds: float, function: Callable[[], None]) -> None:
        self._function, self._seconds = function, seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._trouble = ""

    def start(self) -> None:
        """Begin; does nothing the second time."""
        if self._thread.ident is None:
            self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                self._function()
                if self._trouble:
                    logger.info("%s: well again", self._thread.name)
                self._trouble = ""
            except Unavailable as error:
                if error.code != self._trouble:
                    logger.error("%s: %s", self._thread.name, error)
                self._trouble = error.code
            except Exception:
                logger.exception("%s failed; it will be tried again", self._thread.name)
            if self._stop.wait(self._seconds):
                return


def renew_leases(ledger: Ledger, running: Callable[[], list[Running]], settings: Settings) -> None:
    """Keep what runs here; a job that another worker has taken over leaves the device."""
    for job in running():
        try:
            ledger.renew(job.claim, settings.lease_seconds)
        except ClaimLost as error:
            job.stop(error)


def keep_house(ledger: Ledger, app: Celery, worker: Worker) -> None:
    """Report this worker, take expired leases back, and see to it that due work has invitations.

    So neither a lost message nor a broker that forgot everything can leave a job behind.
    """
    ledger.report_worker(worker)
    for job_id in ledger.reap():
        logger.warning("job %s: its worker vanished", job_id)
    missing = min(ledger.due(worker.pool), worker.slots) - waiting(app, worker.pool)
    if missing > 0:
        invite(app, worker.pool, missing)
