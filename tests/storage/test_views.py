import time

import pytest

from storage.errors import NotFound
from storage.ledger import Ledger, State, Worker
from tests.storage.specs import a_spec, finish


def test_a_job_is_found_by_its_id_whatever_the_case_and_by_its_beginning(ledger: Ledger) -> None:
    [submitted] = ledger.submit([a_spec()])
    time.sleep(0.002)  # another millisecond, another beginning
    ledger.submit([a_spec()])

    for given in (submitted.id, submitted.id.upper(), f" {submitted.id}", submitted.id[:16]):
        assert ledger.job(given).id == submitted.id


def test_a_beginning_that_several_jobs_share_is_refused(ledger: Ledger) -> None:
    first, _ = ledger.submit([a_spec(), a_spec()])
    with pytest.raises(NotFound, match="more than one id begins so"):
        ledger.job(first.id[:8])


@pytest.mark.parametrize("given", ["", "01abc", "%%%%%%", "______", "0" * 26, "0" * 40, "zzzzzz"])
def test_what_is_no_id_is_not_found(ledger: Ledger, given: str) -> None:
    ledger.submit([a_spec()])
    with pytest.raises(NotFound, match=f"job '{given}'"):
        ledger.job(given)


def test_pages_go_from_the_newest_to_the_oldest_without_gap_or_repeat(ledger: Ledger) -> None:
    ids = [s.id for s in ledger.submit(a_spec() for _ in range(25))]

    seen: list[str] = []
    while page := ledger.jobs(limit=10, before=seen[-1] if seen else None):
        seen += [job.id for job in page]

    assert seen == ids[::-1]


def test_jobs_can_be_asked_for_by_state_and_by_label(ledger: Ledger) -> None:
    train, test, _ = (
        s.id
        for s in ledger.submit(
            [a_spec(labels={"set": "train", "n": "1"}), a_spec(labels={"set": "prüf"}), a_spec()]
        )
    )
    taken = ledger.claim(worker="w", pool="default", lease_seconds=30)
    assert taken is not None

    assert [j.id for j in ledger.jobs(state=State.RUNNING)] == [train]
    assert [j.id for j in ledger.jobs(label=("set", "prüf"))] == [test]
    assert [j.id for j in ledger.jobs(label=("set", "train"), state=State.RUNNING)] == [train]
    assert ledger.jobs(label=("set", "test")) == []
    assert ledger.jobs(label=("train", "set")) == []
    assert len(ledger.jobs(state=State.QUEUED)) == 2
    [job] = ledger.jobs(state=State.RUNNING)
    assert job == ledger.job(train)


def test_counts_name_every_state(ledger: Ledger) -> None:
    ledger.submit([a_spec(), a_spec()])
    ledger.submit([a_spec()], pool="other")
    taken = ledger.claim(worker="w", pool="default", lease_seconds=30)
    assert taken is not None
    finish(ledger, taken)

    assert ledger.counts() == {
        State.QUEUED: 2,
        State.RUNNING: 0,
        State.SUCCEEDED: 1,
        State.FAILED: 0,
        State.CANCELED: 0,
    }
    assert ledger.counts("other")[State.QUEUED] == 1


def a_worker(name: str, **other: object) -> Worker:
    values = {"device": "cpu", "pool": "default", "slots": 2, "loaded": (), "started_at": 5.0}
    return Worker(name=name, **{**values, **other})  # type: ignore[arg-type]


def test_workers_are_listed_as_they_last_reported_until_they_leave(ledger: Ledger) -> None:
    ledger.report_worker(a_worker("b"))
    ledger.report_worker(a_worker("a"))
    ledger.report_worker(a_worker("a", loaded=("demo", "sd15"), slots=4))

    first, second = ledger.workers(seen_within=30)

    assert (first.name, first.loaded, first.slots) == ("a", ("demo", "sd15"), 4)
    assert second.name == "b"
    assert abs(first.seen_at - time.time()) < 5
    ledger.forget_worker("a")
    assert [w.name for w in ledger.workers(seen_within=30)] == ["b"]


def test_a_silent_worker_counts_as_gone(ledger: Ledger) -> None:
    ledger.report_worker(a_worker("a"))
    time.sleep(0.1)
    assert ledger.workers(seen_within=0.05) == []
