"""Schedules: each due time fired once, whoever looks, whatever happens in between."""

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import insert, update
from ulid import ULID

from storage.batch_tables import batches
from storage.database import Database
from storage.errors import ClaimLost, InvalidSpec, KeyConflict, NotFound
from storage.firings import GRACE, MOST_ATTEMPTS
from storage.ledger import Ledger
from storage.schedule_tables import firings
from storage.schedule_tables import schedules as table
from storage.schedules import Firing, FiringState, Schedules
from tests.storage.specs import a_spec, finish

HOURLY: dict[str, Any] = {
    "cron": "0 * * * *", "source": "s3://bucket/incoming/", "recipe": {"model": "demo"},
}  # fmt: skip


@pytest.fixture
def schedules(ledger_url: str) -> Iterator[Schedules]:
    opened = Schedules.open(ledger_url)
    yield opened
    opened.close()


@pytest.fixture
def database(ledger_url: str) -> Iterator[Database]:
    opened = Database(ledger_url)
    yield opened
    opened.close()


def set_due(database: Database, seconds_ago: float, name: str = "nightly") -> None:
    """As if its next due time had been so long ago, at a full minute."""
    due_at = (time.time() - seconds_ago) // 60 * 60
    with database.writing() as connection:
        connection.execute(update(table).where(table.c.name == name).values(next_at=due_at))


def expire(database: Database) -> None:
    with database.writing() as connection:
        connection.execute(update(firings).values(lease_until=0.0))


def begin(schedules: Schedules, database: Database, **values: Any) -> Firing:
    """A schedule with a first firing that has been claimed."""
    schedules.add(name="nightly", **{**HOURLY, "cron": "* * * * *", **values})
    set_due(database, 90)
    schedules.plan()
    claimed = schedules.claim("w")
    assert claimed is not None
    return claimed


def submit_batch(ledger: Ledger, database: Database, firing: Firing) -> str:
    """What the firing's submission leaves in the ledger; the batch's id."""
    batch_id = str(ULID()).lower()
    values = {"id": batch_id, "name": firing.batch, "source": "", "recipe": "{}"}
    with database.writing() as connection:
        connection.execute(insert(batches).values(**values, created_at=0.0, held=False))
    ledger.submit([a_spec()], batch=batch_id)
    return batch_id


def states(schedules: Schedules) -> list[str]:
    return [firing.state for firing in schedules.history("nightly")]


def test_a_schedule_is_kept_with_its_next_due_time(schedules: Schedules) -> None:
    added = schedules.add(name="nightly", timezone="Europe/Berlin", **HOURLY)
    assert added.next_at is not None
    assert 0 < added.next_at - time.time() <= 3600
    assert added.next_at % 3600 == 0
    assert (added.recipe, added.paused) == ({"model": "demo"}, False)
    assert schedules.all() == [added] == [schedules.find("nightly")]
    schedules.remove("nightly")
    assert schedules.all() == []


@pytest.mark.parametrize(
    ("values", "error", "sentence"),
    [
        ({"name": "nightly"}, KeyConflict, "there is a schedule 'nightly' already"),
        ({"name": "a b"}, InvalidSpec, "name: 'a b': 1 to 80 letters"),
        ({"name": "-x"}, InvalidSpec, "beginning with a letter or digit"),
        ({"name": "x", "cron": "0 0 31 4 *"}, InvalidSpec, "is not allowed"),
        ({"name": "x", "timezone": "Berlin"}, InvalidSpec, "'Berlin' is no time zone"),
    ],
)
def test_what_cannot_be_a_schedule_is_said(
    schedules: Schedules, values: dict[str, str], error: type[Exception], sentence: str
) -> None:
    schedules.add(name="nightly", **HOURLY)
    with pytest.raises(error, match=sentence):
        schedules.add(**{**HOURLY, **values})
    assert len(schedules.all()) == 1


def test_what_is_not_there_cannot_be_found(schedules: Schedules) -> None:
    for method in (schedules.find, schedules.pause, schedules.resume, schedules.remove,
                   schedules.run_now, schedules.history):  # fmt: skip
        with pytest.raises(NotFound, match="schedule 'x': the ledger has none of this name"):
            method("x")


def test_a_due_time_is_entered_once_and_the_next_one_follows(
    schedules: Schedules, database: Database
) -> None:
    schedules.add(name="nightly", **{**HOURLY, "cron": "* * * * *"})
    assert not schedules.has_work()
    assert schedules.plan() == []
    set_due(database, 10)
    assert schedules.has_work()
    (entered,) = schedules.plan()
    assert (entered.state, entered.attempt) == (FiringState.WAITING, 0)
    assert entered.due_at % 60 == 0
    assert entered.batch == time.strftime("nightly-%Y%m%dT%H%M%SZ", time.gmtime(entered.due_at))
    following = schedules.find("nightly").next_at
    assert following is not None
    assert following > time.time()
    # The same due time again, as if this worker had crashed before it moved on.
    set_due(database, time.time() - entered.due_at)
    assert schedules.plan() == []
    assert len(schedules.history("nightly")) == 1


def test_a_firing_is_claimed_finished_and_told(schedules: Schedules, database: Database) -> None:
    claimed = begin(schedules, database)
    assert (claimed.state, claimed.attempt, claimed.worker) == (FiringState.RUNNING, 1, "w")
    assert schedules.claimed("nightly", claimed.due_at, 1) == claimed
    with pytest.raises(ClaimLost):
        schedules.claimed("nightly", claimed.due_at, 2)
    assert schedules.claim("other") is None
    assert not schedules.has_work()
    schedules.finish(schedules.renew(claimed), rows=3, jobs=2, refused=1)
    (told,) = schedules.history("nightly")
    assert (told.state, told.rows, told.jobs, told.refused) == (FiringState.DONE, 3, 2, 1)
    assert None not in (told.started_at, told.finished_at)
    assert schedules.claim("w") is None


def test_a_firing_whose_owner_vanished_is_taken_over_and_the_owner_writes_no_more(
    schedules: Schedules, database: Database
) -> None:
    lost = begin(schedules, database)
    expire(database)
    assert schedules.has_work()
    taken = schedules.claim("other")
    assert taken is not None
    assert (taken.due_at, taken.batch, taken.attempt) == (lost.due_at, lost.batch, 2)
    for write in (
        lambda: schedules.renew(lost),
        lambda: schedules.finish(lost, rows=1, jobs=1, refused=0),
        lambda: schedules.fail(lost, code="x", message="y"),
    ):
        with pytest.raises(ClaimLost):
            write()
    assert schedules.history("nightly") == [taken]


def test_a_firing_that_kills_its_workers_is_given_up(
    schedules: Schedules, database: Database
) -> None:
    begin(schedules, database)
    for attempt in range(2, MOST_ATTEMPTS + 1):
        expire(database)
        taken = schedules.claim("w")
        assert taken is not None
        assert taken.attempt == attempt
    expire(database)
    assert schedules.claim("w") is None
    (told,) = schedules.history("nightly")
    assert (told.state, told.error_code) == (FiringState.FAILED, "worker_lost")
    assert told.error == f"given up after {MOST_ATTEMPTS} attempts: worker w vanished"


def test_what_may_pass_is_tried_again_and_what_may_not_is_told(
    schedules: Schedules, database: Database
) -> None:
    claimed = begin(schedules, database)
    left = schedules.fail(claimed, code="objects_unavailable", message="away", retry_in=60)
    assert (left.state, left.error) == (FiringState.RUNNING, "away")
    assert schedules.claim("w") is None
    expire(database)
    again = schedules.claim("w")
    assert again is not None
    schedules.fail(again, code="invalid_spec", message="no such source")
    (told,) = schedules.history("nightly")
    assert (told.state, told.error) == (FiringState.FAILED, "no such source")
    assert schedules.claim("w") is None


@pytest.mark.parametrize(
    ("policy", "state"), [("run-once", FiringState.WAITING), ("skip", FiringState.SKIPPED)]
)
def test_due_times_that_nobody_saw_are_made_up_for_once_or_not_at_all(
    schedules: Schedules, database: Database, policy: Any, state: FiringState
) -> None:
    schedules.add(name="nightly", **HOURLY, misfire=policy)
    set_due(database, 5 * 24 * 3600)
    with database.writing() as connection:  # an hourly one whose last hour is long past
        quiet = time.localtime(time.time() - 7200).tm_hour
        connection.execute(update(table).values(cron=f"0 {quiet} * * *", timezone="UTC"))
    (entered,) = schedules.plan()
    assert entered.state == state
    assert GRACE < time.time() - entered.due_at < 24 * 3600
    if policy == "skip":
        assert entered.error == "no worker was there at its time"
        assert schedules.claim("w") is None
    assert schedules.plan() == []


def test_a_little_late_is_not_missed(schedules: Schedules, database: Database) -> None:
    schedules.add(name="nightly", **{**HOURLY, "cron": "* * * * *"}, misfire="skip")
    set_due(database, 3600)  # the minutes before are gone; the last one is not
    (entered,) = schedules.plan()
    assert entered.state == FiringState.WAITING
    assert time.time() - entered.due_at < 61


def test_with_overlap_skip_nothing_is_fired_while_the_batch_before_runs(
    schedules: Schedules, database: Database, ledger: Ledger
) -> None:
    first = begin(schedules, database)
    second = schedules.run_now("nightly")
    assert second.state == FiringState.SKIPPED
    assert second.error == f"the firing before, {first.batch}, is still running"

    submit_batch(ledger, database, first)
    schedules.finish(first, rows=1, jobs=1, refused=0)
    third = schedules.run_now("nightly")
    assert third.error == f"the batch before, {first.batch}, still runs"
    claim = ledger.claim(worker="w", pool="default", lease_seconds=60)
    assert claim is not None
    assert schedules.run_now("nightly").state == FiringState.SKIPPED
    finish(ledger, claim)
    assert schedules.run_now("nightly").state == FiringState.WAITING


def test_with_overlap_queue_one_waits_for_the_batch_before(
    schedules: Schedules, database: Database, ledger: Ledger
) -> None:
    first = begin(schedules, database, overlap="queue")
    second = schedules.run_now("nightly")
    assert second.state == FiringState.WAITING
    third = schedules.run_now("nightly")
    assert third.error == f"the firing before, {second.batch}, waits already"

    assert schedules.claim("w") is None
    submit_batch(ledger, database, first)
    schedules.finish(first, rows=1, jobs=1, refused=0)
    assert schedules.claim("w") is None
    claim = ledger.claim(worker="w", pool="default", lease_seconds=60)
    assert claim is not None
    assert schedules.claim("w") is None
    finish(ledger, claim)
    claimed = schedules.claim("w")
    assert claimed is not None
    assert claimed.due_at == second.due_at


def test_a_paused_schedule_lets_its_times_pass_and_has_missed_nothing(
    schedules: Schedules, database: Database
) -> None:
    schedules.add(name="nightly", **HOURLY)
    assert schedules.pause("nightly").paused
    set_due(database, 7200)
    assert not schedules.has_work()
    assert schedules.plan() == []
    resumed = schedules.resume("nightly")
    assert not resumed.paused
    assert resumed.next_at is not None
    assert resumed.next_at > time.time()
    assert schedules.plan() == []
    # And what is asked for by hand does not ask for the time.
    schedules.pause("nightly")
    assert schedules.run_now("nightly").state == FiringState.WAITING
    assert schedules.claim("w") is not None


def test_a_removed_schedule_is_no_longer_fired(schedules: Schedules, database: Database) -> None:
    claimed = begin(schedules, database)
    schedules.remove("nightly")
    with pytest.raises(ClaimLost, match="or it was removed"):
        schedules.renew(claimed)
    assert not schedules.has_work()


_FIRE = """
import sys
from storage.schedules import Schedules
schedules = Schedules.open(sys.argv[1])
schedules.all()
print("ready", flush=True)
sys.stdin.readline()
for _ in range(20):
    schedules.plan()
    claimed = schedules.claim(sys.argv[2])
    if claimed is not None:
        print(claimed.schedule, claimed.due_at, claimed.attempt, flush=True)
"""


def test_of_several_processes_one_fires_each_due_time(
    schedules: Schedules, database: Database, ledger_url: str
) -> None:
    names = [f"s{number}" for number in range(5)]
    for name in names:
        schedules.add(name=name, **HOURLY)
        set_due(database, 2 * 3600, name)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _FIRE, ledger_url, f"w{number}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(3)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, said
    fired = sorted(line.split() for out, _ in said for line in out.splitlines())
    assert [name for name, _, _ in fired] == names
    assert {attempt for _, _, attempt in fired} == {"1"}
    assert all(len(schedules.history(name)) == 1 for name in names)
