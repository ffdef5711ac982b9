"""One stack in a home: a lock that the kernel takes back when its owner dies."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.errors import NotConfigured

LOCK_FILE = "stack.lock"
#: Seconds to try: `is_locked` holds the lock for a moment when it looks.
_PATIENCE = 0.5


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Own the home; raises NotConfigured when another process does."""
    with (home / LOCK_FILE).open("a") as file:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise NotConfigured(f"another stack runs in {home} already") from None
                time.sleep(0.02)
        yield


def is_locked(home: Path) -> bool:
    """Whether a stack runs in the home now."""
    try:
        with (home / LOCK_FILE).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
