"""One worker process a device: started, started again when it ends, stopped in order.

This process never imports MindSpore, so whatever a device does to its own cannot take it along.
"""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

from storage.errors import NotConfigured
from worker.device import Device

logger = logging.getLogger(__name__)

#: Seconds between two looks at the processes.
TICK = 0.1
#: What no restart mends: a value that is not allowed, a part that is not configured.
HOPELESS = (2, 3)


@dataclass(frozen=True, kw_only=True)
class Pauses:
    """Seconds before a worker that died is started again."""

    first: float = 1.0
    longest: float = 60.0
    #: After so long a run, the next pause is the first one again.
    well_after: float = 60.0

    def after(self, deaths: int) -> float:
        """The pause after so many deaths in a row."""
        return min(self.longest, self.first * 2.0 ** min(deaths - 1, 30))


@dataclass
class Post:
    """A device's place: the process that holds it now, and how those before it ended."""

    name: str
    command: Sequence[str]
    pauses: Pauses
    process: "subprocess.Popen[bytes] | None" = None
    begun: float = 0.0
    deaths: int = 0
    #: When to start the next process; None: never again.
    due: float | None = 0.0
    #: The last process's exit status; below zero: the signal that ended it.
    status: int = 0
    reader: threading.Thread = field(default_factory=threading.Thread)

    def look(self, now: float, stopping: bool) -> None:
        """Take note of a process that ended, and start the next one when it is due."""
        if self.process is not None:
            if self.process.poll() is None:
                return
            self._ended(now, stopping)
        if self.due is not None and now >= self.due and not stopping:
            self._start(now)

    def send(self, number: int) -> None:
        if self.process is not None:
            self.process.send_signal(number)

    def _start(self, now: float) -> None:
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Its own session: Ctrl-C reaches us, and we stop the workers in order.
            start_new_session=True,
        )
        self.begun, self.due = now, None
        assert self.process.stdout is not None
        self.reader = threading.Thread(
            target=_pass_on, args=(self.process.stdout, self.name), daemon=True
        )
        self.reader.start()
        logger.info("%s: process %d", self.name, self.process.pid)

    def _ended(self, now: float, stopping: bool) -> None:
        assert self.process is not None
        self.reader.join(1.0)
        self.status, self.process = self.process.returncode, None
        if stopping:
            return
        if self.status == 0:
            logger.info("%s: its process left between two jobs; the next one starts", self.name)
            self.deaths, self.due = 0, now
        elif self.status in HOPELESS:
            logger.error("%s: status %d: no restart would mend that", self.name, self.status)
        else:
            self.deaths = 1 if now - self.begun >= self.pauses.well_after else self.deaths + 1
            pause = self.pauses.after(self.deaths)
            logger.error("%s: died (%s); again in %g s", self.name, _how(self.status), pause)
            self.due = now + pause


def supervise(commands: Mapping[str, Sequence[str]], pauses: Pauses | None = None) -> int:
    """Keep a process of each command running until SIGTERM or SIGINT; returns an exit status.

    The signal is passed on as SIGTERM, a second one as SIGKILL. 0: all were stopped in order.
    1: one of them had died, or had to be killed. 2 or 3: all ended with what no restart
    mends.
    """
    posts = [Post(name, command, pauses or Pauses()) for name, command in commands.items()]
    with _counted_signals() as signals:
        passed_on = 0
        while True:
            stopping = bool(signals)
            for post in posts:
                post.look(time.monotonic(), stopping)
            if all(post.process is None for post in posts):
                if stopping:
                    return int(any(post.status != 0 for post in posts if post.begun))
                if all(post.due is None for post in posts):
                    return max(post.status for post in posts)
            while passed_on < min(len(signals), 2):
                number = signal.SIGKILL if passed_on else signal.SIGTERM
                passed_on += 1
                for post in posts:
                    post.send(number)
            time.sleep(TICK)


def parse_devices(text: str, found: int) -> list[Device]:
    """The devices that `auto`, `cpu`, `ascend:0-7` or `ascend:0,2` names.

    `auto` is every Ascend card of this host, of which there are `found`; the CPU where there is
    none. Raises NotConfigured.
    """
    if text == "auto":
        text = f"ascend:0-{found - 1}" if found else "cpu"
    if text == "cpu":
        return [Device("cpu")]
    numbers: list[int] = []
    if match := re.fullmatch(r"ascend:(\d{1,3}(?:-\d{1,3})?(?:,\d{1,3}(?:-\d{1,3})?)*)", text):
        for part in match[1].split(","):
            first, _, last = part.partition("-")
            numbers += range(int(first), int(last or first) + 1)
    if not numbers or len(set(numbers)) < len(numbers):
        raise NotConfigured(
            f"devices {text!r}: auto, cpu, or cards such as ascend:0-7 or ascend:0,2, each once"
        )
    return [Device("ascend", number) for number in numbers]


def ascend_cards(devices: Path = Path("/dev")) -> int:
    """How many Ascend cards the kernel shows here. The runtime numbers them from 0 on."""
    return sum(bool(re.fullmatch(r"davinci\d+", file.name)) for file in devices.iterdir())


def worker_command(device: Device, options: Sequence[str]) -> list[str]:
    """The command of one device's worker, which ends in order when this process dies."""
    # Without -P, a worker.py in the user's folder would be run instead.
    module = [sys.executable, "-P", "-m", "worker"]
    return [*module, "--device", str(device), "--supervisor", str(os.getpid()), *options]


@contextmanager
def _counted_signals() -> Iterator[list[int]]:
    """The SIGTERM and SIGINT that came, as they come."""
    came: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _pass_on(output: IO[bytes], name: str) -> None:
    """Each line as it comes, with the device's name before it; whole, whoever else writes."""
    with output:
        for line in output:
            sys.stderr.buffer.write(b"[%s] %s" % (name.encode(), line))
            sys.stderr.buffer.flush()


def _how(status: int) -> str:
    return f"status {status}" if status >= 0 else signal.Signals(-status).name
