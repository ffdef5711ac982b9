"""Waiting for a server that is away, with what the device has made in hand."""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from storage.errors import DeviceFailed, InputUnavailable, LatentmillError, Unavailable

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

#: Seconds that a worker keeps trying: longer than a server takes to start again.
PATIENCE = 120.0
#: Pauses are random, up to base * 2**tries and at most the cap (full jitter), in seconds.
BASE, CAP = 0.5, 10.0


def patiently(
    call: Callable[[], Value],
    leave: Callable[[], LatentmillError | None],
    seconds: float = PATIENCE,
) -> Value:
    """What `call` returns, tried again while a server is away.

    Raises its Unavailable when that lasts longer than `seconds`, or what `leave` returns as soon as
    it returns something: the job has been lost, or the worker stops.
    """
    deadline, tries = time.monotonic() + seconds, 0
    while True:
        try:
            return call()
        except (DeviceFailed, InputUnavailable):
            raise  # not servers of ours: the job may as well wait in the queue
        except Unavailable as error:
            if time.monotonic() >= deadline:
                raise
            logger.warning("waiting: %s", error)
            _pause(random.uniform(0, min(CAP, BASE * 2**tries)), leave)
            tries += 1


def _pause(seconds: float, leave: Callable[[], LatentmillError | None]) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if (reason := leave()) is not None:
            raise reason
        time.sleep(min(left, 0.1))
