from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, update

from storage.database import Database
from storage.fairness import HEAD_START, LONGEST_WAIT
from storage.ledger import Claim, Ledger, Selection, State, StepRecord
from storage.spec import Img2Img, Spec, Text2Img
from storage.tables import jobs
from tests.storage.specs import a_spec


@pytest.fixture
def database(ledger_url: str) -> Iterator[Database]:
    opened = Database(ledger_url)
    yield opened
    opened.close()


def claim(ledger: Ledger, *prefer: str, lease: float = 30.0) -> Claim:
    found = ledger.claim(worker="w", pool="default", lease_seconds=lease, prefer=prefer)
    assert found is not None
    return found


def of_model(model: str, **around: Any) -> Spec:
    return Spec(steps=(Text2Img(model=model, prompt="x"),), **around)


def wait_by(database: Database, seconds: float, *job_ids: str) -> None:
    """Let jobs have been due for so many seconds longer."""
    with database.writing() as connection:
        statement = update(jobs).values(run_at=jobs.c.run_at - seconds)
        connection.execute(statement.where(jobs.c.id.in_(job_ids)) if job_ids else statement)


@pytest.mark.parametrize("claimed_before", [0, 1, 30])
def test_a_single_job_goes_next_however_long_the_batch_before_it(
    ledger: Ledger, claimed_before: int
) -> None:
    ledger.submit((a_spec() for _ in range(2500)), batch="long")
    for _ in range(claimed_before):
        claim(ledger)
    first, second = (ledger.submit([a_spec()])[0].id for _ in range(2))
    assert [claim(ledger).job_id for _ in range(2)] == [first, second]


def test_a_submission_of_many_without_a_batch_lets_a_single_job_pass_too(ledger: Ledger) -> None:
    ledger.submit(a_spec() for _ in range(20))
    [single] = ledger.submit([a_spec()])
    assert claim(ledger).job_id == single.id


def test_two_batches_have_half_each_however_late_the_second_comes(ledger: Ledger) -> None:
    early = {s.id for s in ledger.submit((a_spec() for _ in range(200)), batch="early")}
    for _ in range(60):
        claim(ledger)
    late = {s.id for s in ledger.submit((a_spec() for _ in range(100)), batch="late")}

    for _ in range(10):
        taken = [claim(ledger).job_id for _ in range(10)]
        assert len(early.intersection(taken)) == len(late.intersection(taken)) == 5


def test_a_batch_that_is_submitted_bit_by_bit_gains_nothing_by_it(ledger: Ledger) -> None:
    whole = {s.id for s in ledger.submit((a_spec() for _ in range(40)), batch="whole")}
    for _ in range(40):
        ledger.submit([a_spec()], batch="in bits")
    taken = [claim(ledger).job_id for _ in range(20)]
    assert len(whole.intersection(taken)) == 10


def test_a_canceled_batch_leaves_no_trace_in_the_order_of_others(ledger: Ledger) -> None:
    ledger.submit((a_spec() for _ in range(50)), batch="gone")
    kept = [s.id for s in ledger.submit((a_spec() for _ in range(3)), batch="kept")]
    ledger.cancel(Selection(batch="gone"))
    [single] = ledger.submit([a_spec()])
    assert [claim(ledger).job_id for _ in range(4)] == [single.id, *kept]


def test_priority_goes_before_turns(ledger: Ledger) -> None:
    [low] = ledger.submit([a_spec()])
    high = [s.id for s in ledger.submit((a_spec(priority=1) for _ in range(5)), batch="b")]
    assert [claim(ledger).job_id for _ in range(6)] == [*high, low.id]


def test_a_job_that_was_given_back_goes_next(ledger: Ledger) -> None:
    ledger.submit((a_spec() for _ in range(30)), batch="b")
    first, *_ = (claim(ledger) for _ in range(10))
    ledger.give_back(first)
    assert claim(ledger).job_id == first.job_id


def test_a_job_waits_for_its_time_and_for_its_turn_from_then_on(
    ledger: Ledger, database: Database
) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    [later] = ledger.submit([a_spec(priority=5, run_at=soon)])
    [now] = ledger.submit([a_spec()])
    assert ledger.due("default") == 1
    assert ledger.job(later.id).run_at == soon.timestamp()
    assert claim(ledger).job_id == now.id
    assert ledger.claim(worker="w", pool="default", lease_seconds=30) is None

    wait_by(database, 3601, later.id)

    assert ledger.due("default") == 1
    assert claim(ledger).job_id == later.id


def test_a_batch_whose_time_has_come_shares_with_the_others(
    ledger: Ledger, database: Database
) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    night = {s.id for s in ledger.submit((a_spec(run_at=soon) for _ in range(30)), batch="night")}
    day = {s.id for s in ledger.submit((a_spec() for _ in range(30)), batch="day")}
    wait_by(database, 3601, *night)
    taken = [claim(ledger).job_id for _ in range(20)]
    assert len(night.intersection(taken)) == len(day.intersection(taken)) == 10


# Preference


def test_what_is_loaded_goes_first_among_equal_priority(ledger: Ledger) -> None:
    other, here = (ledger.submit([of_model(m)])[0].id for m in ("other", "here"))
    [urgent] = ledger.submit([of_model("other", priority=1)])
    assert [claim(ledger, "here").job_id for _ in range(3)] == [urgent.id, here, other]


def test_a_job_is_passed_over_for_what_is_loaded_no_longer_than_the_bound(
    ledger: Ledger, database: Database
) -> None:
    [waits] = ledger.submit([of_model("other")])
    ledger.submit((of_model("here") for _ in range(3)), batch="b")
    wait_by(database, LONGEST_WAIT - 10, waits.id)
    assert claim(ledger, "here").job_id != waits.id
    wait_by(database, 11, waits.id)
    assert claim(ledger, "here").job_id == waits.id


def test_when_all_wait_for_long_what_is_loaded_has_a_head_start_and_no_more(
    ledger: Ledger, database: Database
) -> None:
    count = 2 * HEAD_START
    other = {s.id for s in ledger.submit((of_model("other") for _ in range(count)), batch="o")}
    ledger.submit((of_model("here") for _ in range(count)), batch="h")
    wait_by(database, LONGEST_WAIT + 10)
    taken = [claim(ledger, "here").job_id in other for _ in range(count)]
    assert taken.index(True) == HEAD_START + 1
    assert sum(taken) == (count - HEAD_START) // 2


def test_the_model_of_the_next_step_counts(ledger: Ledger) -> None:
    chain = (Text2Img(model="one", prompt="x"), Img2Img(model="two", prompt="y"))
    ledger.submit([Spec(steps=chain)])
    begun = claim(ledger)
    ledger.finish_step(begun, StepRecord(index=0))
    ledger.give_back(begun)
    ledger.submit([of_model("one")])
    assert claim(ledger, "two").job_id == begun.job_id


# What it costs


@pytest.mark.parametrize("prefer", [(), ("sd15", "xl")])
def test_a_claim_reads_few_rows_however_many_wait(sqlite_url: str, prefer: tuple[str, ...]) -> None:
    """SQLite counts what its machine does: no statement may walk the queue."""
    ledger = Ledger.open(sqlite_url)
    ledger.upgrade()

    def cost() -> int:
        ticks = 0

        def tick() -> None:
            nonlocal ticks
            ticks += 1

        engine = ledger._database._engine

        def watch(dbapi: Any, *_: object) -> None:
            dbapi.set_progress_handler(tick, 10)

        event.listen(engine, "checkout", watch)
        for _ in range(5):
            ledger.claim(worker="w", pool="default", lease_seconds=30, prefer=prefer)
        event.remove(engine, "checkout", watch)
        return ticks

    def fill(count: int) -> None:
        later = datetime.now(UTC) + timedelta(hours=1)
        ledger.submit((a_spec() for _ in range(count)), batch="now")
        ledger.submit((a_spec(priority=9, run_at=later, deadline=later + timedelta(1))
                       for _ in range(count)), batch="later")  # fmt: skip

    fill(50)
    few = cost()
    fill(4000)
    assert few > 0
    assert cost() < 2 * few
    assert ledger.counts()[State.RUNNING] == 10
    ledger.close()
