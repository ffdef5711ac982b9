"""Waiting for a server, but not for ever, and not when there is no use."""

import time
from collections.abc import Callable

import pytest

from storage.errors import ClaimLost, DeviceFailed, InvalidSpec, LatentmillError, ObjectsUnavailable
from worker.patience import patiently


def failing(*errors: LatentmillError) -> Callable[[], str]:
    left = list(errors)

    def call() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return call


def test_a_server_that_comes_back_is_waited_for() -> None:
    away = ObjectsUnavailable("away")
    assert patiently(failing(away, away), lambda: None, 30) == "done"


def test_one_that_stays_away_is_given_up() -> None:
    begun = time.monotonic()
    with pytest.raises(ObjectsUnavailable):
        patiently(failing(*[ObjectsUnavailable("away")] * 1000), lambda: None, 0.3)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("error", [InvalidSpec("wrong"), ClaimLost("lost"), DeviceFailed("hot")])
def test_what_waiting_does_not_mend_is_raised_at_once(error: LatentmillError) -> None:
    with pytest.raises(type(error)):
        patiently(failing(error), lambda: None, 30)


def test_a_job_that_must_leave_waits_no_longer() -> None:
    with pytest.raises(ClaimLost):
        patiently(failing(*[ObjectsUnavailable("away")] * 9), lambda: ClaimLost("taken"), 30)
