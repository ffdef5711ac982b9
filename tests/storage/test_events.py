"""Events: what happens to jobs, told once and in one order."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import insert, select, update

from storage.api_tables import events
from storage.database import Database
from storage.errors import InvalidSpec
from storage.events import BEGINNING, KEPT, Events, prune, read_place, show_place
from storage.jobs import Selection
from storage.ledger import Ledger
from tests.storage.specs import a_chain, a_spec, finish


def kinds(ledger: Ledger, **which: str) -> list[str]:
    return [event.kind for event in Events(ledger.database).after(BEGINNING, **which)]  # type: ignore[arg-type]


def test_a_jobs_life_is_told_from_its_beginning_to_its_end(ledger: Ledger) -> None:
    [job] = ledger.submit([a_chain(2)], owner="ada")
    claim = ledger.claim(worker="w", pool="default", lease_seconds=30)
    assert claim is not None
    finish(ledger, claim)

    told = Events(ledger.database).after(BEGINNING)

    assert [event.kind for event in told] == ["queued", "running", "step", "step", "succeeded"]
    assert [event.step for event in told] == [0, 0, 1, 2, 2]
    assert {(event.job_id, event.owner) for event in told} == {(job.id, "ada")}
    assert [event.place for event in told] == sorted(event.place for event in told)


def fails(ledger: Ledger) -> None:
    claim = ledger.claim(worker="w", pool="default", lease_seconds=30)
    assert claim is not None
    ledger.fail(claim, code="invalid_image", message="broken", retry_in=None)


def comes_back(ledger: Ledger) -> None:
    claim = ledger.claim(worker="w", pool="default", lease_seconds=30)
    assert claim is not None
    ledger.give_back(claim)


def vanishes(ledger: Ledger) -> None:
    assert ledger.claim(worker="w", pool="default", lease_seconds=0.001) is not None
    time.sleep(0.01)
    ledger.reap()


def is_canceled_and_tried_again(ledger: Ledger) -> None:
    [job] = ledger.jobs()
    ledger.cancel(Selection(ids=(job.id,)))
    ledger.retry(Selection(ids=(job.id,)))


@pytest.mark.parametrize(
    ("happens", "told"),
    [
        (fails, ["queued", "running", "failed"]),
        (comes_back, ["queued", "running", "queued"]),
        (vanishes, ["queued", "running", "queued"]),
        (is_canceled_and_tried_again, ["queued", "canceled", "queued"]),
    ],
)
def test_every_change_of_state_is_told(
    ledger: Ledger, happens: Callable[[Ledger], None], told: list[str]
) -> None:
    ledger.submit([a_spec()])
    happens(ledger)
    assert kinds(ledger) == told


def test_a_deadline_that_passed_is_told(ledger: Ledger) -> None:
    ledger.submit([a_spec(deadline=datetime(2020, 1, 1, tzinfo=UTC))])
    assert ledger.expire() == 1
    assert kinds(ledger) == ["queued", "failed"]


def test_what_enters_as_a_batch_is_not_told_one_by_one_but_its_ends_are(ledger: Ledger) -> None:
    ledger.submit([a_spec(), a_spec()], batch="b")
    ledger.cancel(Selection(batch="b"))
    assert kinds(ledger) == ["canceled", "canceled"]


def test_events_are_found_by_owner_and_by_job(ledger: Ledger) -> None:
    [mine] = ledger.submit([a_spec()], owner="ada")
    ledger.submit([a_spec()], owner="bob")
    ledger.submit([a_spec()])

    assert len(kinds(ledger)) == 3
    assert len(kinds(ledger, owner="ada")) == 1
    assert len(kinds(ledger, job_id=mine.id)) == 1


def test_a_reader_never_passes_by_what_commits_late(postgres_url: str) -> None:
    ledger = Ledger.open(postgres_url)
    ledger.upgrade()
    database = Database(postgres_url)
    reader = Events(ledger.database)
    entered, go_on = threading.Event(), threading.Event()
    row = {"owner": "", "kind": "queued", "step": 0, "attempt": 0, "at": 0.0}

    def slow() -> None:
        with database.writing() as connection:
            connection.execute(insert(events).values(job_id="slow", **row))
            entered.set()
            go_on.wait(10)

    thread = threading.Thread(target=slow)
    thread.start()
    assert entered.wait(10)
    with database.writing() as connection:
        connection.execute(insert(events).values(job_id="quick", **row))
    before = reader.after(BEGINNING)
    go_on.set()
    thread.join()
    place = before[-1].place if before else BEGINNING
    seen = [*before, *reader.after(place)]

    assert [event.job_id for event in seen] == ["slow", "quick"]
    ledger.close()
    database.close()


def test_events_are_forgotten_after_a_day_and_their_ids_never_come_back(ledger: Ledger) -> None:
    ledger.submit([a_spec()])
    before = Events(ledger.database).newest()
    with ledger.database.writing() as connection:
        connection.execute(update(events).values(at=events.c.at - KEPT - 1))
    with ledger.database.writing() as connection:
        assert prune(connection) == 1
        assert connection.execute(select(events)).all() == []
    ledger.submit([a_spec()])

    [event] = Events(ledger.database).after(before)
    assert event.place > before


def test_a_place_is_written_and_read() -> None:
    assert read_place(show_place((3, 14))) == (3, 14)
    for wrong in ("", "x", "1", "1-", "-1", "1-2-3", "\uff11-2", "9" * 50):
        with pytest.raises(InvalidSpec):
            read_place(wrong)
