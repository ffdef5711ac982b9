"""What the device did with its time: sums since the worker began, for anybody to subtract."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Meter:
    """Counts and seconds of one worker; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = time.monotonic()
        self._sums: dict[str, float] = {}
        self._steps: dict[str, list[float]] = {}
        #: What is being timed: its name, and since when.
        self._open: dict[object, tuple[str, float]] = {}

    def add(self, name: str, amount: float = 1) -> None:
        with self._lock:
            self._add(name, amount)

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Adds to `<name>_seconds` as time goes by, and at the end one to `<name>_count`."""
        mark, begun = object(), time.monotonic()
        with self._lock:
            self._open[mark] = name, begun
        try:
            yield
        finally:
            with self._lock:
                del self._open[mark]
                self._add(f"{name}_seconds", time.monotonic() - begun)
                self._add(f"{name}_count", 1)

    def step(self, group: str, rows: int, seconds: float) -> None:
        """A call of the model for `rows` rows of a group, such as `sdxl 1024x1024`."""
        with self._lock:
            counts = self._steps.setdefault(group, [0, 0, 0.0])
            for i, amount in enumerate((1, rows, seconds)):
                counts[i] += amount

    def figures(self) -> dict[str, Any]:
        """Everything as JSON: `steps` holds calls, rows and seconds of each group."""
        now = time.monotonic()
        with self._lock:
            sums = dict(self._sums)
            for name, begun in self._open.values():
                sums[f"{name}_seconds"] = sums.get(f"{name}_seconds", 0) + now - begun
            return {
                "up_seconds": round(now - self._begun, 3),
                **{name: round(value, 4) for name, value in sums.items()},
                "steps": {
                    group: {"calls": int(calls), "rows": int(rows), "seconds": round(seconds, 4)}
                    for group, (calls, rows, seconds) in self._steps.items()
                },
            }

    def _add(self, name: str, amount: float) -> None:
        self._sums[name] = self._sums.get(name, 0) + amount
