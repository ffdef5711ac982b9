"""A running job can be looked at through a real broker, and is forgotten soon after."""

import pytest
from celery import Celery

from storage.broker import celery_app, client
from storage.live import LOOKED, SHOWN, LiveView, look, looked_at, show

VIEW = LiveView(step=1, done=3, total=20, preview=b"\xff\xd8 jpeg")


@pytest.fixture
def app(redis_url: str) -> Celery:
    return celery_app(redis_url)


def test_who_looks_is_shown_what_the_worker_shows(app: Celery) -> None:
    assert look(app, "a") is None
    assert looked_at(app, ["a", "b"]) == {"a"}
    show(app, {"a": VIEW})
    assert look(app, "a") == VIEW
    assert look(app, "b") is None


def test_a_job_with_nothing_to_see_is_shown_too(app: Celery) -> None:
    view = LiveView(step=0, done=0, total=5, preview=None)
    show(app, {"c": view})
    assert look(app, "c") == view


def test_looks_and_views_leave_redis_by_themselves(app: Celery) -> None:
    look(app, "d")
    show(app, {"d": VIEW})
    with client(app) as redis:
        lives = {key.decode(): redis.ttl(key) for key in redis.keys("latentmill-*:d")}
    assert lives == {"latentmill-looked:d": LOOKED, "latentmill-shown:d": SHOWN}


def test_no_jobs_are_not_asked_about() -> None:
    assert looked_at(Celery(), []) == set()
