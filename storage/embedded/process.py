"""Server processes that never outlive the one that started them."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from storage.errors import NotConfigured, Unavailable

#: Seconds for a server to become ready, and to stop in order before it is killed.
START_TIMEOUT, STOP_TIMEOUT = 30.0, 15.0
_PR_SET_PDEATHSIG = 1


def installed_binary(package: str, name: str) -> Path:
    """A program that a Python package brought along; raises NotConfigured."""
    try:
        found = [file for file in distribution(package).files or [] if file.name == name]
    except PackageNotFoundError:
        found = []
    if not found:
        raise NotConfigured(
            f"the embedded stack needs {package}: run `pip install 'latentmill[embedded]'`"
        )
    return Path(str(found[0].locate())).resolve()


@contextmanager
def running_process(
    command: Sequence[str], log: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes into `log` and ends with the block, or when this process dies.

    Enter it in a thread that lives as long as the block: for Linux, that thread is the parent.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env or {}),
            # Its own session: Ctrl-C reaches us, and we stop the servers in order.
            start_new_session=True,
            preexec_fn=dying_with(os.getpid(), signal.SIGKILL),
        )
    try:
        yield process
    finally:
        _stop(process)


def wait_until_ready(
    process: subprocess.Popen[bytes], ready: Callable[[], bool], name: str, log: Path
) -> None:
    """Ask `ready` until it says so; raises Unavailable when the process ends or takes too long."""
    deadline = time.monotonic() + START_TIMEOUT
    while not ready():
        status = process.poll()
        if status is not None:
            raise Unavailable(f"{name} ended at its start with status {status}: see {log}")
        if time.monotonic() > deadline:
            raise Unavailable(f"{name} was not ready after {START_TIMEOUT:g} s: see {log}")
        time.sleep(0.02)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        # One that was frozen cannot answer until it goes on.
        process.send_signal(signal.SIGCONT)
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def dying_with(parent: int, number: signal.Signals) -> Callable[[], None]:
    """What a child calls so that it gets this signal when its parent dies."""
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None).prctl

    def die_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it died before prctl
            os._exit(1)

    return die_with_parent
