"""Which model's rows the device steps next: a pure function of who waits, and for how long."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from storage.fairness import LONGEST_WAIT

#: Seconds after which a group that needs no loading gets its turn, whoever runs.
PATIENCE = 1.0
#: A model that must be loaded for its turn waits until as many jobs of the others have ended, but
#: no longer than LONGEST_WAIT.
JOBS_BETWEEN_SWAPS = 50


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows that can share a call of the model, and the requests that would join them."""

    key: Any
    #: In flight: begun and not yet done.
    rows: int
    #: Not yet begun.
    waiting: int
    #: The highest of its jobs'.
    priority: int
    #: Seconds since its last turn, or since its first request came.
    waited: float
    #: Its model is loaded.
    loaded: bool
    #: Jobs of all other groups that have ended since its last turn.
    passed_over: int = 0

    @property
    def overdue(self) -> bool:
        if self.loaded:
            return self.waited >= PATIENCE
        return self.passed_over >= JOBS_BETWEEN_SWAPS or self.waited >= LONGEST_WAIT


@dataclass(frozen=True)
class Turn:
    """The group to step, and whether requests may join it."""

    key: Any
    admits: bool


def choose(groups: Sequence[Group], current: Any = None) -> Turn:
    """The next turn among `groups`, which are not empty; `current` is the key that ran last.

    Higher priority first, then a group that has waited too long, then the one that runs: what is
    begun ends sooner than if all were stepped in turn, and no model is loaded without need. A model
    is only loaded once the rows in flight of the one that runs have ended, which then admits no
    more: rows begun are never left behind for a swap.
    """
    best = max(groups, key=lambda group: _rank(group, current))
    running = next((group for group in groups if group.key == current and group.rows), None)
    if running is not None and running.key != best.key and not best.loaded:
        return Turn(running.key, admits=False)
    return Turn(best.key, admits=True)


def _rank(group: Group, current: Any) -> tuple[Any, ...]:
    runs = group.key == current
    # What runs is never overdue itself: its own wait is that of one step.
    overdue = group.overdue and not runs
    return (group.priority, overdue, runs, group.loaded, group.waited)
