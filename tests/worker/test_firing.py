"""Due schedules, fired by worker processes that race, are killed, and stop in order."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import update

from storage.batches import Batches
from storage.database import Database
from storage.ledger import Ledger
from storage.schedule_tables import firings
from storage.schedule_tables import schedules as table
from storage.schedules import FiringState, Schedules
from storage.settings import PREFIX
from worker.firing import Firer

HOUSEKEEPING = """
import sys, time
from storage.schedules import Schedules
from worker.firing import Firer
firer = Firer(Schedules.open(sys.argv[1]), sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
while True:
    firer.look()
    time.sleep(0.05)
"""
PICTURES = 300


@pytest.fixture
def schedules(ledger_url: str) -> Iterator[Schedules]:
    opened = Schedules.open(ledger_url)
    yield opened
    opened.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures that no two of are equal, enough of them to be in the middle of."""
    root = tmp_path / "incoming"
    root.mkdir()
    for number in range(PICTURES):
        color = (number % 256, number // 256, 7)
        Image.new("RGB", (64, 64), color).save(root / f"{number:03}.png")
    return root


@pytest.fixture
def due(
    schedules: Schedules, ledger_url: str, folder: Path, s3: dict[str, str], redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Schedules:  # fmt: skip
    """A schedule that is due, and an environment in which its firing finds everything."""
    for name, value in {"database_url": ledger_url, "redis_url": redis_url, **s3}.items():
        monkeypatch.setenv(PREFIX + name.upper(), value)
    # The processes that are started here run the same source, wherever it was installed from.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    schedules.add(
        name="nightly", cron="* * * * *", source=str(folder),
        recipe={"model": "demo", "prompt": "an apple", "strength": 0.6},
    )  # fmt: skip
    database = Database(ledger_url)
    with database.writing() as connection:
        connection.execute(update(table).values(next_at=(time.time() - 60) // 60 * 60))
    database.close()
    return schedules


def once(ledger_url: str) -> None:
    """Let no other time come due, and whoever owns the firing lose it."""
    database = Database(ledger_url)
    with database.writing() as connection:
        connection.execute(update(table).values(paused=True))
        connection.execute(update(firings).values(lease_until=0.0))
    database.close()


def until(look: Callable[[], bool], seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def keepers(ledger_url: str) -> Iterator[list["subprocess.Popen[str]"]]:
    """Two processes that keep house."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", HOUSEKEEPING, ledger_url, f"w{number}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    yield started
    for process in started:
        process.kill()
        process.communicate()


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def ready(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def jobs(ledger_url: str) -> int:
    ledger = Ledger.open(ledger_url)
    found = sum(ledger.counts().values())
    ledger.close()
    return found


def test_two_processes_and_one_due_time_make_one_firing(
    due: Schedules, keepers: list["subprocess.Popen[str]"], ledger_url: str
) -> None:
    for process in keepers:
        ready(process)
    for process in keepers:
        go(process)
    until(lambda: [f.state for f in due.history("nightly")][-1:] == [FiringState.DONE])
    due.pause("nightly")
    first = due.history("nightly")[-1]
    assert (first.attempt, first.rows, first.jobs) == (1, PICTURES, PICTURES)
    batches = Batches.open(ledger_url)
    assert [batch.name for batch in batches.newest()] == [first.batch]
    batches.close()
    assert jobs(ledger_url) == PICTURES


def test_a_firing_whose_worker_is_killed_in_the_middle_is_taken_over(
    due: Schedules, keepers: list["subprocess.Popen[str]"], ledger_url: str
) -> None:
    batches = Batches.open(ledger_url)
    killed, other = keepers
    ready(killed)
    ready(other)
    go(killed)
    until(lambda: len(batches.newest()) == 1)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    (running,) = due.history("nightly")
    assert (running.state, running.attempt) == (FiringState.RUNNING, 1)
    once(ledger_url)
    go(other)
    until(lambda: due.history("nightly")[0].state == FiringState.DONE)
    (done,) = due.history("nightly")
    assert (done.attempt, done.batch, done.rows) == (2, running.batch, PICTURES)
    assert jobs(ledger_url) == PICTURES
    batches.close()


def test_a_worker_that_stops_leaves_its_firing_to_the_next(due: Schedules, ledger_url: str) -> None:
    first, second = Firer(due, "first"), Firer(due, "second")
    try:
        first.look()
        (running,) = due.history("nightly")
        assert (running.state, running.worker) == (FiringState.RUNNING, "first")
        due.pause("nightly")
        second.look()
        assert due.history("nightly") == [running]
        first.stop()
        (left,) = due.history("nightly")
        assert left.error == "its process was ended by signal 15"

        def fired() -> bool:
            second.look()
            return due.history("nightly")[0].state == FiringState.DONE

        until(fired)
    finally:
        first.stop()
        second.stop()
    (done,) = due.history("nightly")
    assert (done.worker, done.attempt, done.error) == ("second", 2, None)
    assert jobs(ledger_url) == PICTURES
