"""Work that is done again and again beside everything else."""

import logging
import threading
from collections.abc import Callable

from storage.errors import Unavailable

logger = logging.getLogger(__name__)


class Repeat:
    """Calls a function every so many seconds in a thread of its own, until stopped.

    What may pass (a server away) is logged once when it begins and once when it ends.
    """

    def __init__(
        self,
        name: str,
        seconds: float,
        function: Callable[[], None],
        after_trouble: float | None = None,
    ) -> None:
        self._function, self._seconds = function, seconds
        self._after_trouble = seconds if after_trouble is None else after_trouble
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
            pause = self._after_trouble
            try:
                self._function()
                pause = self._seconds
                if self._trouble:
                    logger.info("%s: well again", self._thread.name)
                self._trouble = ""
            except Unavailable as error:
                if error.code != self._trouble:
                    logger.error("%s: %s", self._thread.name, error)
                self._trouble = error.code
            except Exception:
                logger.exception("%s failed; it will be tried again", self._thread.name)
            if self._stop.wait(pause):
                return
