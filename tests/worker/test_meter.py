"""What a meter has counted, and what it is still timing."""

import pytest

from worker.meter import Meter


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("worker.meter.time.monotonic", lambda: now[0])
    return now


def test_time_counts_while_it_passes_and_once(clock: list[float]) -> None:
    meter = Meter()
    with meter.timing("idle"):
        clock[0] += 5
        assert meter.figures()["idle_seconds"] == 5
        assert "idle_count" not in meter.figures()
        clock[0] += 1
    clock[0] += 4
    figures = meter.figures()
    assert (figures["idle_seconds"], figures["idle_count"], figures["up_seconds"]) == (6, 1, 10)


def test_several_threads_may_time_the_same(clock: list[float]) -> None:
    meter = Meter()
    with meter.timing("upload"), meter.timing("upload"):
        clock[0] += 2
    assert meter.figures()["upload_seconds"] == 4
    assert meter.figures()["upload_count"] == 2


def test_steps_are_counted_by_group() -> None:
    meter = Meter()
    meter.step("demo 64x64", 3, 0.5)
    meter.step("demo 64x64", 1, 0.25)
    assert meter.figures()["steps"] == {"demo 64x64": {"calls": 2, "rows": 4, "seconds": 0.75}}
