"""A device that runs a trace of arrivals on measured times, without any device.

Two ways are compared: rows that join and leave at each step, as the device loop takes them, and
first come first served in fixed batches, which end when their longest row does.
"""

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from worker.turns import Group, Turn, choose


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A job of a trace."""

    at: float
    model: str
    steps: int
    priority: int = 0


@dataclass(frozen=True, kw_only=True)
class Times:
    """What a model's calls cost, in seconds."""

    load: float
    #: By the number of rows of a call.
    step: Mapping[int, float]

    def of(self, rows: int) -> float:
        """Seconds of a step with so many rows, between and beyond the measured numbers in line."""
        known = sorted(self.step)
        i = min(max(bisect.bisect_left(known, rows), 1), len(known) - 1) if len(known) > 1 else 0
        if not i:
            return self.step[known[0]] * rows / known[0]
        low, high = known[i - 1], known[i]
        slope = (self.step[high] - self.step[low]) / (high - low)
        return max(self.step[low] + slope * (rows - low), min(self.step.values()))


@dataclass(eq=False)
class Running:
    arrival: Arrival
    left: int
    begun: float


@dataclass
class Outcome:
    """What a run came to. Waits are from arrival to the first step, turnarounds to the last."""

    clock: float = 0.0
    busy: float = 0.0
    swaps: int = 0
    #: (model, wait, turnaround) of each job, in the order of their ends.
    ended: list[tuple[str, float, float]] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        waits = sorted(wait for _, wait, _ in self.ended)
        turnarounds = sorted(turnaround for _, _, turnaround in self.ended)
        return {
            "jobs": len(self.ended),
            "makespan_seconds": round(self.clock, 3),
            "wait_p50_seconds": round(percentile(waits, 50), 3),
            "wait_p95_seconds": round(percentile(waits, 95), 3),
            "turnaround_p95_seconds": round(percentile(turnarounds, 95), 3),
            "device_use": round(self.busy / self.clock, 4) if self.clock else 0.0,
            "swaps": self.swaps,
        }


def percentile(values: Sequence[float], percent: int) -> float:
    return values[min(len(values) - 1, len(values) * percent // 100)] if values else 0.0


def in_time(arrivals: Sequence[Arrival]) -> list[Arrival]:
    return sorted(arrivals, key=lambda arrival: arrival.at)


@dataclass
class Simulation:
    """One device that holds `capacity` models, with room for so many rows of each."""

    times: Mapping[str, Times]
    room: int = 16
    capacity: int = 1
    outcome: Outcome = field(default_factory=Outcome)
    _loaded: list[str] = field(default_factory=list)

    def in_the_loop(self, arrivals: Sequence[Arrival]) -> Outcome:
        """As the device loop does."""
        coming, waiting, rows = in_time(arrivals), list[Arrival](), list[Running]()
        turns: dict[str, tuple[float, int]] = {}
        current: str | None = None
        while coming or waiting or rows:
            while coming and coming[0].at <= self.outcome.clock:
                waiting.append(coming.pop(0))
            if not waiting and not rows:
                self.outcome.clock = coming[0].at
                continue
            turn = choose(self._groups(waiting, rows, turns), current)
            current = str(turn.key)
            self._load(current, {row.arrival.model for row in rows})
            self._join(turn, waiting, rows)
            self._step(current, rows)
            turns[current] = (self.outcome.clock, len(self.outcome.ended))
        return self.outcome

    def in_fixed_batches(self, arrivals: Sequence[Arrival]) -> Outcome:
        """First come first served: the first job, and those of its model right behind it."""
        coming = in_time(arrivals)
        while coming:
            self.outcome.clock = max(self.outcome.clock, coming[0].at)
            model, batch = coming[0].model, list[Arrival]()
            while coming and len(batch) < self.room and coming[0].at <= self.outcome.clock:
                if coming[0].model != model:
                    break
                batch.append(coming.pop(0))
            self._load(model, set())
            begun = self.outcome.clock
            seconds = max(job.steps for job in batch) * self.times[model].of(len(batch))
            self.outcome.clock += seconds
            self.outcome.busy += seconds
            self.outcome.ended += [
                (model, begun - job.at, self.outcome.clock - job.at) for job in batch
            ]
        return self.outcome

    def _groups(
        self, waiting: list[Arrival], rows: list[Running], turns: dict[str, tuple[float, int]]
    ) -> list[Group]:
        jobs = [*waiting, *(row.arrival for row in rows)]
        models = {job.model for job in jobs}
        for gone in turns.keys() - models:
            del turns[gone]
        groups = []
        for model in sorted(models):
            mine = [job for job in jobs if job.model == model]
            first = min(job.at for job in mine)
            since, ended = turns.setdefault(model, (first, len(self.outcome.ended)))
            begun = sum(row.arrival.model == model for row in rows)
            groups.append(
                Group(
                    key=model,
                    rows=begun,
                    waiting=len(mine) - begun,
                    priority=max(job.priority for job in mine),
                    waited=self.outcome.clock - since,
                    loaded=model in self._loaded,
                    passed_over=len(self.outcome.ended) - ended,
                )
            )
        return groups

    def _load(self, model: str, in_flight: set[str]) -> None:
        if model in self._loaded:
            self._loaded.remove(model)
        else:
            if len(self._loaded) >= self.capacity:
                assert self._loaded[0] not in in_flight, "rows were left behind"
                del self._loaded[0]
            self.outcome.swaps += 1
            self.outcome.clock += self.times[model].load
        self._loaded.append(model)

    def _join(self, turn: Turn, waiting: list[Arrival], rows: list[Running]) -> None:
        model: Any = turn.key
        if not turn.admits:
            return
        free = self.room - sum(row.arrival.model == model for row in rows)
        mine = [job for job in waiting if job.model == model]
        for job in sorted(mine, key=lambda job: -job.priority)[:free]:
            waiting.remove(job)
            rows.append(Running(job, job.steps, self.outcome.clock))

    def _step(self, model: str, rows: list[Running]) -> None:
        mine = [row for row in rows if row.arrival.model == model]
        seconds = self.times[model].of(len(mine))
        self.outcome.clock += seconds
        self.outcome.busy += seconds
        for row in mine:
            row.left -= 1
            if not row.left:
                rows.remove(row)
                at = row.arrival.at
                self.outcome.ended.append((model, row.begun - at, self.outcome.clock - at))
