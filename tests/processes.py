"""Finding server processes, to kill or freeze them."""

import os
import signal
import time
from pathlib import Path


def pid_of_valkey(folder: Path) -> int:
    """The server whose data lie in or below `folder`."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            started = (process / "comm").read_text().startswith("valkey")
            if started and (process / "cwd").readlink().is_relative_to(folder):
                return int(process.name)
        except OSError:
            continue
    raise AssertionError("no Valkey runs here")


def end_valkey(folder: Path, sent: signal.Signals) -> None:
    """Signal the server whose data lie below `folder`, and wait until it is gone.

    One that ends in order removes its socket last: it would take away that of its successor.
    """
    pid = pid_of_valkey(folder)
    os.kill(pid, sent)
    end = time.monotonic() + 60
    while _lives(pid):
        assert time.monotonic() < end, "Valkey does not end"
        time.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        # Not even a process that has ended, and that nobody has waited for, has one.
        Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return False
    return True
