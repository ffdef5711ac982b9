"""Invitations for what was submitted, sent beside the requests: no answer waits for the broker."""

import logging
import threading
from collections import Counter

from celery import Celery

from producer.client import INVITATIONS
from storage.broker import invite
from storage.errors import BrokerUnavailable

logger = logging.getLogger(__name__)


class Inviter:
    """One thread that tells the workers of pools about new jobs, many at a time."""

    def __init__(self, broker: Celery) -> None:
        self._broker = broker
        self._new: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="inviter", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Send what is left, and end."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def call(self, pool: str) -> None:
        """A job of this pool has entered the ledger."""
        with self._changed:
            self._new[pool] += 1
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._new or self._stopping)
                if not self._new:
                    return
                new, self._new = self._new, Counter()
            try:
                for pool, count in new.items():
                    invite(self._broker, pool, min(count, INVITATIONS))
            except BrokerUnavailable as error:
                logger.warning("%s; workers will find the jobs in the ledger", error)
