"""Which group is stepped next: by itself, and over simulated loads."""

from typing import Any

import pytest

from worker.bench.simulation import Arrival, Outcome, Simulation, Times
from worker.turns import JOBS_BETWEEN_SWAPS, LONGEST_WAIT, PATIENCE, Group, Turn, choose


def group(key: str, **values: Any) -> Group:
    return Group(
        **{"key": key, "rows": 4, "waiting": 0, "priority": 0, "waited": 0.0, "loaded": True}
        | values
    )


@pytest.mark.parametrize(
    ("groups", "turn"),
    [
        # What runs goes on.
        ([group("a"), group("b", waited=0.5)], Turn("a", admits=True)),
        # Until another has waited too long, which costs nothing where it is loaded.
        ([group("a"), group("b", waited=PATIENCE)], Turn("b", admits=True)),
        # Or is more important.
        ([group("a"), group("b", priority=1)], Turn("b", admits=True)),
        # A model to load waits for fifty jobs or for its bound, and then for the rows in flight.
        ([group("a"), group("b", loaded=False, waited=99.0)], Turn("a", admits=True)),
        (
            [group("a"), group("b", loaded=False, passed_over=JOBS_BETWEEN_SWAPS)],
            Turn("a", admits=False),
        ),
        ([group("a"), group("b", loaded=False, waited=LONGEST_WAIT)], Turn("a", admits=False)),
        ([group("a"), group("b", loaded=False, priority=1)], Turn("a", admits=False)),
        (
            [group("a", rows=0, waiting=9), group("b", loaded=False, waited=LONGEST_WAIT)],
            Turn("b", admits=True),
        ),
        # With nothing else to do it is loaded at once.
        ([group("b", loaded=False)], Turn("b", admits=True)),
        # Of others, the loaded one; then the one that waits longest.
        ([group("b", loaded=False, waited=9.0), group("c", waited=0.1)], Turn("c", admits=True)),
        ([group("b", waited=0.2), group("c", waited=0.1)], Turn("b", admits=True)),
    ],
)
def test_the_next_turn(groups: list[Group], turn: Turn) -> None:
    assert choose(groups, current="a") == turn
    assert choose(groups[::-1], current="a") == turn


def simulate(
    arrivals: list[tuple[float, str, int]], step_seconds: float = 0.1
) -> tuple[Outcome, list[float]]:
    """Jobs (time, model, priority) of ten steps each, on a device that holds one model at a time
    and takes ten rows at most; what it came to, and how long the jobs of model b took."""
    times = Times(load=5.0, step={1: step_seconds, 10: step_seconds})
    jobs = [Arrival(at=at, model=model, steps=10, priority=p) for at, model, p in arrivals]
    outcome = Simulation({"a": times, "b": times}, room=10).in_the_loop(jobs)
    return outcome, [took for model, _, took in outcome.ended if model == "b"]


def test_alternating_jobs_of_two_models_swap_at_most_once_in_fifty() -> None:
    outcome, _ = simulate([(0.05 * i, "ab"[i % 2], 0) for i in range(1000)])
    assert len(outcome.ended) == 1000
    assert outcome.swaps <= 1000 / JOBS_BETWEEN_SWAPS + 1


def test_a_lone_job_of_another_model_waits_no_longer_than_the_bound() -> None:
    # Slow jobs, so that the bound comes before the fiftieth.
    arrivals = [(10.0 * i, "a", 0) for i in range(100)]
    _, (took,) = simulate([*arrivals, (100.0, "b", 0)], step_seconds=20.0)
    # The bound, the rows then in flight, the load, and its own ten steps.
    assert took <= LONGEST_WAIT + 10 * 20.0 + 5.0 + 10 * 20.0 + 20.0


def test_an_important_job_goes_next() -> None:
    arrivals = [(0.01 * i, "a", 0) for i in range(900)]
    _, (took,) = simulate([*arrivals, (10.0, "b", 5)])
    # The rows then in flight, the load, and its own ten steps.
    assert took <= 1.0 + 5.0 + 1.0 + 0.2
