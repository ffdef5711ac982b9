"""Taking invitations: Celery's consumer, and a new one when it breaks."""

import logging
import time
from collections.abc import Callable
from typing import Any

from celery.platforms import EX_FAILURE
from celery.worker.consumer import Consumer

from storage.broker import WORK, celery_app, count_refused, queue_name
from storage.errors import BrokerUnavailable

logger = logging.getLogger(__name__)

#: Seconds before a broken consumer is replaced.
PAUSE = 1.0


class Strict(Consumer):  # type: ignore[misc]
    """Counts the messages that Celery drops: of other tasks, or not JSON."""

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        super().on_decode_error(message, exc)
        self._count()

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        super().on_unknown_task(body, message, exc)
        self._count()

    def on_unknown_message(self, body: Any, message: Any) -> None:
        super().on_unknown_message(body, message)
        self._count()

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        super().on_invalid_task(body, message, exc)
        self._count()

    def _count(self) -> None:
        try:
            count_refused(self.app, "not_an_invitation")
        except BrokerUnavailable as error:
            logger.error("a refused message was not counted: %s", error)


def consume(redis_url: str, work: Callable[[], None], *, name: str, slots: int, pool: str) -> None:
    """Call `work` for each invitation, in `slots` threads, until the process is told to stop.

    Celery connects again by itself when the broker comes back. But a connection that breaks while
    a message is being acknowledged ends the whole consumer (kombu fails to close it); jobs in
    flight finish, and another consumer takes its place.
    """
    while True:
        app = celery_app(redis_url)
        app.task(work, name=WORK)
        app.finalize()
        for builtin in set(app.tasks) - {WORK}:  # nobody may call Celery's own
            app.tasks.unregister(builtin)
        consumer = app.Worker(
            consumer_cls=Strict,
            pool="threads",
            concurrency=slots,
            queues=[queue_name(pool)],
            hostname=name,
            without_gossip=True,
            without_mingle=True,
            loglevel="INFO",
            quiet=True,
        )
        consumer.start()
        if consumer.exitcode != EX_FAILURE:
            return
        logger.error("the consumer broke; a new one starts in %g s", PAUSE)
        time.sleep(PAUSE)
