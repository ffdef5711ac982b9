"""Batches on each kind of database: rows enter once, and tell what became of them."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event

from storage.batch_entry import NewRow
from storage.batches import Batch, Batches, Status
from storage.errors import NotFound
from storage.jobs import Selection, State
from storage.ledger import Ledger
from storage.submission import new_job
from tests.storage.specs import a_spec, finish


@pytest.fixture
def batches(ledger_url: str) -> Iterator[Batches]:
    opened = Batches.open(ledger_url)
    yield opened
    opened.close()


def create(batches: Batches, name: str = "apples", **values: Any) -> Batch:
    return batches.create(name=name, source="/data", recipe={"model": "demo"}, **values)


def row(number: int, key: str | None = None, **values: Any) -> NewRow:
    key = f"content-{number}" if key is None else key
    job = new_job(a_spec(key, key=key))
    place = f"list.csv:{number}"
    given = {"place": place, "entry": f"a/{number}", "key": key, "job": job, "pool": "default"}
    return NewRow(number=number, **{**given, **values})


def bad(number: int) -> NewRow:
    return NewRow(number=number, place="x", code="invalid_image", reason="it is broken")


def statuses(batches: Batches, batch: Batch) -> list[Status]:
    return [each.status for each in batches.all_rows(batch.id)]


def run_all(ledger: Ledger) -> int:
    count = 0
    while claim := ledger.claim(worker="w", pool="default", lease_seconds=30):
        finish(ledger, claim)
        count += 1
    return count


def test_a_batch_is_found_by_its_id_its_beginning_and_its_name(batches: Batches) -> None:
    first, second = create(batches), create(batches)
    assert batches.find(first.id.upper()).id == first.id
    assert batches.find("apples").id == second.id
    assert [each.id for each in batches.newest()] == [second.id, first.id]
    for wrong in ("pears", "", "zzzzzzzz"):
        with pytest.raises(NotFound, match="batch "):
            batches.find(wrong)


def test_rows_enter_with_their_jobs_and_are_counted_by_what_became_of_them(
    batches: Batches, ledger: Ledger
) -> None:
    batch = create(batches)
    entered = batches.intake(batch.id).enter([row(0), row(1), bad(2), row(3)])
    assert entered.outcomes == {"job": 3, "failed": 1}
    assert entered.pools == {"default": 3}
    done = ledger.claim(worker="w", pool="default", lease_seconds=30)
    assert done is not None
    finish(ledger, done)
    ledger.cancel(Selection(batch=batch.id))
    assert batches.finish(batch.id).total == 4
    assert statuses(batches, batch) == [
        Status.SUCCEEDED, Status.CANCELED, Status.FAILED, Status.CANCELED,
    ]  # fmt: skip
    counts = batches.counts(batch.id)
    assert (counts.rows, counts.open, counts.lately) == (4, 0, 1)
    assert counts.codes == {"invalid_image": 1}
    assert [each.job_id for each in batches.results(batch.id)] == [done.job_id]


def test_what_is_there_or_comes_is_skipped_and_what_failed_runs_again(
    batches: Batches, ledger: Ledger
) -> None:
    first, second = create(batches), create(batches)
    batches.intake(first.id).enter([row(0), row(1), row(2)])
    done = ledger.claim(worker="w", pool="default", lease_seconds=30)
    failing = ledger.claim(worker="w", pool="default", lease_seconds=30)
    assert done is not None
    assert failing is not None
    finish(ledger, done)
    ledger.fail(failing, code="invalid_image", message="no", retry_in=None)

    keys = [f"content-{number}" for number in range(4)]
    assert batches.settled(keys) == {"content-0", "content-2"}
    again = [row(0, job=None), row(1), row(2, job=None), row(3)]
    entered = batches.intake(second.id).enter(again)

    assert entered.outcomes == {"skipped": 2, "job": 2}
    assert entered.pools == {"default": 2}
    assert ledger.job(failing.job_id).batch == second.id
    assert run_all(ledger) == 3
    assert statuses(batches, second) == [
        Status.SKIPPED, Status.SUCCEEDED, Status.SKIPPED, Status.SUCCEEDED,
    ]  # fmt: skip


def test_a_chunk_that_holds_known_and_new_keys_makes_only_the_new_jobs(
    batches: Batches, ledger: Ledger
) -> None:
    intake = batches.intake(create(batches).id)
    intake.enter([row(0)])
    # As when another process entered them a moment ago.
    entered = intake.enter([row(1, "content-0"), row(2), row(3, "content-2")])
    assert entered.outcomes == {"skipped": 2, "job": 1}
    assert len(ledger.jobs()) == 2


def test_rows_of_one_name_get_names_of_their_own_unless_the_name_is_a_key(
    batches: Batches,
) -> None:
    batch = create(batches)
    intake = batches.intake(batch.id)
    intake.enter([row(0, entry="x"), row(1, entry="x"), row(2, entry="x", variant="seed-1")])
    intake.enter([row(3, entry="x"), row(4, entry="x", is_key=True)])
    found = list(batches.all_rows(batch.id))
    assert [each.name for each in found] == ["x", "x.row-1", "x.seed-1", "x.row-3", None]
    assert [each.code for each in found] == [None] * 4 + ["duplicate_key"]


def test_held_rows_wait_for_their_release(batches: Batches, ledger: Ledger) -> None:
    batch = create(batches, pilot=[1])
    rows = [row(0, held=True), row(1), row(2, held=True), row(3, "content-2")]
    entered = batches.intake(batch.id).enter(rows)
    # Of two equal rows one may run, so their job does.
    assert entered.pools == {"default": 2}
    assert run_all(ledger) == 2
    assert statuses(batches, batch)[0] is Status.HELD
    assert batches.find(batch.id).pilot == (1,)
    assert batches.release(batch.id) == 1
    assert batches.release(batch.id) == 0
    assert run_all(ledger) == 1
    assert batches.counts(batch.id).open == 0


def test_a_held_job_that_another_batch_wants_runs(batches: Batches, ledger: Ledger) -> None:
    held, free = create(batches, pilot=[9]), create(batches)
    batches.intake(held.id).enter([row(0, held=True)])
    assert ledger.claim(worker="w", pool="default", lease_seconds=30) is None
    batches.intake(free.id).enter([row(0, job=None)])
    assert run_all(ledger) == 1


def test_a_canceled_job_of_a_held_row_waits_too(batches: Batches, ledger: Ledger) -> None:
    first, second = create(batches), create(batches, pilot=[9])
    batches.intake(first.id).enter([row(0)])
    ledger.cancel(Selection(batch=first.id))
    batches.intake(second.id).enter([row(0, held=True)])
    assert statuses(batches, second) == [Status.HELD]
    assert ledger.claim(worker="w", pool="default", lease_seconds=30) is None
    batches.release(second.id)
    assert run_all(ledger) == 1
    assert ledger.counts()[State.SUCCEEDED] == 1


def test_pages_of_rows_are_chosen_by_status_number_and_code(batches: Batches) -> None:
    batch = create(batches)
    batches.intake(batch.id).enter([*map(row, range(5)), bad(5), bad(6)])

    def numbers(**chosen: Any) -> list[int]:
        return [each.number for each in batches.rows(batch.id, **chosen)]

    assert numbers(limit=3, after=1) == [2, 3, 4]
    assert numbers(numbers=[6, 1]) == [1, 6]
    assert numbers(statuses=[Status.FAILED]) == [5, 6]
    assert numbers(code="invalid_image", limit=1) == [5]


def test_a_row_enters_at_the_same_cost_however_many_are_there(sqlite_url: str) -> None:
    """SQLite counts what its machine does: no statement may walk the jobs or the rows."""
    ledger, batches = Ledger.open(sqlite_url), Batches.open(sqlite_url)
    ledger.upgrade()
    intake = batches.intake(create(batches).id)
    ticks, number = 0, 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1

    def watch(dbapi: Any, *_: object) -> None:
        dbapi.set_progress_handler(tick, 10)

    def cost() -> int:
        nonlocal ticks, number
        ticks = 0
        batches.settled([f"content-{number - each}" for each in range(10)])
        intake.enter([row(number + each) for each in range(10)])
        number += 10
        return ticks

    event.listen(batches.database._engine, "checkout", watch)
    cost()
    few = cost()
    for first in range(1000, 9000, 1000):
        intake.enter([row(first + each) for each in range(1000)])
    assert few > 0
    assert cost() < 2 * few
    batches.close()
    ledger.close()
