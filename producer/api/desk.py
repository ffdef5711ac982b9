"""Where jobs enter the ledger: one thread, and one transaction for all that came meanwhile.

So a hundred requests at once wait for a few commits, not for a hundred, and never for each other's
locks.
"""

import asyncio
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field

from producer.api.inviter import Inviter
from storage.errors import LatentmillError, Unavailable
from storage.jobs import Asked, Submitted
from storage.ledger import Ledger

#: Jobs that enter together.
MOST = 200


@dataclass
class _Waiting:
    asked: Asked
    answer: "Future[Submitted]" = field(default_factory=Future)


class Desk:
    """Takes specs from many requests, and gives each its answer."""

    def __init__(self, ledger: Ledger, inviter: Inviter) -> None:
        self._ledger, self._inviter = ledger, inviter
        self._waiting: list[_Waiting] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="desk", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Enter what is left, and end."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    async def submit(self, asked: Asked) -> Submitted:
        """Enter a job; raises KeyConflict or Unavailable."""
        waiting = _Waiting(asked)
        with self._changed:
            self._waiting.append(waiting)
            self._changed.notify()
        return await asyncio.wrap_future(waiting.answer)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                some, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            if not some:
                return
            # Whoever has hung up meanwhile is not served.
            some = [each for each in some if each.answer.set_running_or_notify_cancel()]
            self._enter(some)

    def _enter(self, some: list[_Waiting]) -> None:
        try:
            found = self._ledger.submit_each([each.asked for each in some])
        except Exception as error:
            if len(some) == 1 or isinstance(error, Unavailable):
                for each in some:
                    each.answer.set_exception(error)
                return
            # One of them it was: the others are not to suffer.
            for each in some:
                self._enter([each])
            return
        for each, answer in zip(some, found, strict=True):
            if isinstance(answer, LatentmillError):
                each.answer.set_exception(answer)
                continue
            if answer.created:
                self._inviter.call(each.asked.pool)
            each.answer.set_result(answer)
