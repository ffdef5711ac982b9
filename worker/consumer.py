"""Taking invitations: Celery's consumer, and a new one when it breaks."""

import logging
import time
from collections.abc import Callable

from celery.platforms import EX_FAILURE

from storage.broker import WORK, celery_app, queue_name

logger = logging.getLogger(__name__)

#: Seconds before a broken consumer is replaced.
PAUSE = 1.0


def consume(redis_url: str, work: Callable[[], None], *, name: str, slots: int, pool: str) -> None:
    """Call `work` for each invitation, in `slots` threads, until the process is told to stop.

    Celery connects again by itself when the broker comes back. But a connection that breaks while
    a message is being acknowledged ends the whole consumer (kombu fails to close it); jobs in
    flight finish, and another consumer takes its place.
    """
    while True:
        app = celery_app(redis_url)
        app.task(work, name=WORK)
        consumer = app.Worker(
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
