"""Firing due schedules: any worker does it, in a process of its own beside the device."""

import logging
import os
import subprocess
import sys

from storage.errors import ClaimLost, Unavailable, WorkerLost
from storage.schedules import Firing, Schedules

logger = logging.getLogger(__name__)

#: Without -P, a producer.py in the user's folder would be run instead.
COMMAND = (sys.executable, "-P", "-m", "producer", "schedule", "fire")
#: Seconds for a firing to end in order when the worker stops.
STOP_TIMEOUT = 5.0


class Firer:
    """One firing at a time: what this worker has claimed, and the process that does it."""

    def __init__(self, schedules: Schedules, worker: str) -> None:
        self._schedules, self._worker = schedules, worker
        self._firing: Firing | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def look(self) -> None:
        """Enter what has come due, and begin with a firing when none runs here."""
        if self._process is not None:
            if self._process.poll() is None:
                return
            self._ended()
        if not self._schedules.has_work():
            return
        for entered in self._schedules.plan():
            why = f": {entered.error}" if entered.error else ""
            logger.info("schedule %s is due: %s%s", entered.schedule, entered.state, why)
        self._firing = self._schedules.claim(self._worker)
        if self._firing is not None:
            self._process = self._start(self._firing)

    def stop(self) -> None:
        """Leave what runs to other workers."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        try:
            self._ended()
        except Unavailable as error:  # its lease will run out
            logger.warning("firing %s: %s", self._firing, error)

    def _start(self, firing: Firing) -> "subprocess.Popen[bytes]":
        logger.info("schedule %s: submitting batch %s", firing.schedule, firing.batch)
        what = (firing.schedule, repr(firing.due_at), str(firing.attempt))
        # No preexec_fn: this process has run operators, and must not run Python in a fork.
        return subprocess.Popen(
            [*COMMAND, *what, "--parent", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _ended(self) -> None:
        """Take note of a process that ended; what it could not record itself, we do."""
        assert self._process is not None
        assert self._firing is not None
        status, firing = self._process.returncode, self._firing
        if status < 0:
            try:
                message = f"its process was ended by signal {-status}"
                self._schedules.fail(firing, code=WorkerLost.code, message=message, retry_in=0.0)
            except ClaimLost:
                pass  # it had said itself how it ended
        if status != 0:
            logger.warning("schedule %s: ended with status %d", firing.schedule, status)
        self._process = self._firing = None
