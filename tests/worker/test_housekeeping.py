import pytest
from celery import Celery

from storage.broker import celery_app, waiting
from storage.jobs import Selection, StepRecord, Worker
from storage.ledger import Claim, Ledger
from storage.objects import Objects, carry_key
from tests.storage.specs import a_chain, a_spec
from worker.housekeeping import keep_house, make_room
from worker.runner import Running

ME = Worker(name="w", device="cpu", pool="default", slots=2, loaded=(), started_at=0.0)


@pytest.fixture
def app(redis_url: str) -> Celery:
    return celery_app(redis_url)


def begun(ledger: Ledger, objects: Objects, lease: float = 30.0) -> tuple[Claim, list[str]]:
    """A job in its second step, and what it has in the bucket."""
    ledger.submit([a_chain(2)])
    claim = ledger.claim(worker="w", pool="default", lease_seconds=lease)
    assert claim is not None
    keys = [carry_key(claim.job_id, 0), carry_key(claim.job_id, 1, "row.safetensors")]
    for key in keys:
        objects.put(key, b"latent", "application/octet-stream")
    ledger.finish_step(claim, StepRecord(index=0, carry=keys[0], carry_kind="latent"))
    return claim, keys


def test_what_ended_jobs_left_is_removed_and_nothing_of_live_ones(
    ledger: Ledger, objects: Objects, app: Celery
) -> None:
    (_, alive), (waiting_again, queued) = begun(ledger, objects), begun(ledger, objects)
    ledger.give_back(waiting_again)
    ledger.cancel(Selection(ids=(waiting_again.job_id,)))
    (lost, kept), (failed, gone) = begun(ledger, objects, lease=-1), begun(ledger, objects)
    ledger.fail(failed, code="x", message="", retry_in=None)

    keep_house(ledger, objects, app, ME)

    assert [objects.exists(key) for key in queued + gone] == [False] * 4
    assert [objects.exists(key) for key in alive + kept] == [True] * 4
    assert ledger.littered() == []
    assert ledger.job(lost.job_id).state == "queued"
    assert waiting(app, "default") == 1


def running(ledger: Ledger, priority: int) -> Running:
    ledger.submit([a_spec(priority=priority)])
    claim = ledger.claim(worker="w", pool="default", lease_seconds=30)
    assert claim is not None
    assert claim.spec.priority == priority
    return Running(claim)


@pytest.mark.parametrize(
    ("priority", "leaves"), [(9, [False, True]), (1, [False, True]), (0, [False, False])]
)
def test_a_job_of_higher_priority_takes_the_place_of_the_least_important_one(
    ledger: Ledger, priority: int, leaves: list[bool]
) -> None:
    jobs = [running(ledger, 5), running(ledger, 0)]
    make_room(ledger, "default", 2, jobs)
    assert [job.leave is not None for job in jobs] == [False, False]
    ledger.submit([a_spec(priority=priority)])
    make_room(ledger, "default", 3, jobs)
    assert [job.leave is not None for job in jobs] == [False, False]
    make_room(ledger, "default", 2, jobs)
    assert [job.leave is not None for job in jobs] == leaves
    # One at a time: the next look comes when it has left.
    make_room(ledger, "default", 2, jobs)
    assert [job.leave is not None for job in jobs] == leaves


def test_of_equals_the_one_claimed_last_makes_room(ledger: Ledger) -> None:
    jobs = [running(ledger, 0), running(ledger, 0)]
    ledger.submit([a_spec(priority=1)])
    make_room(ledger, "default", 2, jobs)
    assert [job.leave is not None for job in jobs] == [False, True]
