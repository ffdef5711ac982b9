"""Calls of one compiled model with any number of places, through a few compiled batch sizes."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

#: The arrays that a model takes for one sample of a batch.
Place = tuple[np.ndarray, ...]

#: Arrays (n, ...) to arrays (n, ...).
Model = Callable[..., tuple[np.ndarray, ...]]

#: The batch sizes that a model may be compiled for.
SIZES = (1, 2, 4, 8, 16)

#: Until it is measured, a call of twice the size is taken to last 2 ** GROWTH as long.
GROWTH = 0.8


@dataclass
class Measured:
    """What is known of the calls with places of one form."""

    compiled: set[int] = field(default_factory=set)
    #: The shortest call of each compiled size, in seconds; the first one compiles and says nothing.
    seconds: dict[int, float] = field(default_factory=dict)
    #: The longest first call.
    compiling: float = 0.0
    #: Seconds that sizes not yet compiled would have saved so far.
    lost: float = 0.0

    def expected(self, size: int) -> float:
        """Seconds of a call, by the measured size that is nearest."""
        nearest = min(self.seconds, key=lambda known: abs(math.log(known / size)))
        return self.seconds[nearest] * (size / nearest) ** GROWTH

    def sizes(self, count: int, may_compile: Callable[[], bool]) -> list[int]:
        """The sizes of the calls for `count` places; those not yet compiled are then."""
        if not self.seconds:
            return cover(count, {s: s**GROWTH for s in self.compiled or {fitting(count)}})[0]
        compiled, longer = cover(count, {s: self.expected(s) for s in self.compiled})
        best, shorter = cover(count, {s: self.expected(s) for s in SIZES})
        self.lost += longer - shorter
        new = set(best) - self.compiled
        if not new or self.lost < self.compiling * len(new) or not may_compile():
            return compiled
        self.lost = 0.0
        return best

    def note(self, size: int, seconds: float) -> None:
        """A call of that size lasted so long."""
        if size in self.compiled:
            self.seconds[size] = min(seconds, self.seconds.get(size, seconds))
        else:
            self.compiled.add(size)
            self.compiling = max(self.compiling, seconds)


class Calls:
    """A model that is asked for any number of places.

    Every other batch size means compiling for seconds, in which all rows wait. So the first call
    is filled up to a size of SIZES, and another one is compiled only when what it would have saved
    by then is worth that (as who rents skis buys them once the rent has cost as much). What a size
    saves is measured as calls are made.
    """

    def __init__(self, model: Model, clock: Callable[[], float] = time.perf_counter) -> None:
        self._model, self._clock = model, clock
        #: Asked before another size is compiled.
        self.may_compile: Callable[[], bool] = lambda: True
        self._measured: dict[tuple[tuple[int, ...], ...], Measured] = {}

    def __call__(self, places: Sequence[Place]) -> Iterator[tuple[np.ndarray, ...]]:
        """What the model gives for each place; all of them have one form."""
        if not places:
            return
        form = tuple(np.shape(array) for array in places[0])
        measured = self._measured.setdefault(form, Measured())
        start = 0
        for size in measured.sizes(len(places), self.may_compile):
            part = list(places[start : start + size])
            filled = part + part[-1:] * (size - len(part))
            yield from list(zip(*self._timed(measured, size, filled), strict=True))[: len(part)]
            start += size

    def forget(self) -> None:
        """The compiled graphs were freed."""
        self._measured.clear()

    def _timed(
        self, measured: Measured, size: int, places: Sequence[Place]
    ) -> tuple[np.ndarray, ...]:
        begun = self._clock()
        outputs = self._model(*(np.stack(arrays) for arrays in zip(*places, strict=True)))
        measured.note(size, self._clock() - begun)
        return outputs


def fitting(count: int) -> int:
    """The smallest size that takes `count` places, or the largest there is."""
    return next((size for size in SIZES if size >= count), SIZES[-1])


def cover(count: int, costs: Mapping[int, float]) -> tuple[list[int], float]:
    """The cheapest sizes that together take `count` places, larger ones first, and their cost."""
    best: list[tuple[float, list[int]]] = [(0.0, [])]
    for places in range(1, count + 1):
        best.append(
            min(
                (best[max(0, places - size)][0] + cost, [*best[max(0, places - size)][1], size])
                for size, cost in costs.items()
            )
        )
    cost, sizes = best[count]
    return sorted(sizes, reverse=True), cost
