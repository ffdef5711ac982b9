"""How fast a batch goes, and how long it still takes."""

from collections.abc import Sequence
from statistics import median

from storage.batch_views import LATELY, Counts, Status


def pictures_a_second(runs: Sequence[tuple[float, float]]) -> float | None:
    """The speed of some runs, each the seconds that it took and when it ended; None of none.

    By the time in which any of them was at work; none counts for longer than the median run, so
    that a model that was loaded and compiled for the first of them is not paid again and again.
    """
    if not runs:
        return None
    usual = median(seconds for seconds, _ in runs)
    busy, until = 0.0, float("-inf")
    for begin, end in sorted((end - min(seconds, usual), end) for seconds, end in runs):
        busy += max(0.0, end - max(begin, until))
        until = max(until, end)
    return len(runs) / busy if busy > 0 else None


def speed_now(counts: Counts) -> float:
    """Pictures a second within the last minute."""
    if counts.began_at is None:
        return 0.0
    return counts.lately / max(1.0, min(LATELY, counts.now - counts.began_at))


def seconds_left(counts: Counts) -> float | None:
    """Until all rows have ended that are not held; None where nothing has succeeded lately."""
    speed = speed_now(counts)
    left = counts.statuses[Status.QUEUED] + counts.statuses[Status.RUNNING]
    return left / speed if speed else None
