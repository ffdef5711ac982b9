"""A schedule among worker processes, one of which is killed while it submits."""

import os
import signal
import time
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import update

from storage.batches import Batches
from storage.database import Database
from storage.jobs import State
from storage.schedule_tables import firings, schedules
from storage.schedules import FiringState, Schedules
from tests.faults.mill import PATIENCE, Mill

PICTURES = 200


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    root = tmp_path / "incoming"
    root.mkdir()
    for number in range(PICTURES):
        Image.new("RGB", (64, 64), (number, 9, 9)).save(root / f"{number:03}.png")
    return root


def test_a_due_time_is_fired_once_though_its_worker_is_killed(
    mill: Mill, incoming: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    kept, database = Schedules.open(mill.ledger_url), Database(mill.ledger_url)
    workers = {worker.pid: worker for worker in (mill.start_worker(), mill.start_worker())}
    recipe = {"model": "demo", "prompt": "a cat", "strength": 1.0, "num_inference_steps": 1}
    kept.add(name="minutely", cron="* * * * *", source=str(incoming), recipe=recipe)
    with database.writing() as connection:
        due = (time.time() - 60) // 60 * 60
        connection.execute(update(schedules).values(next_at=due))

    deadline = time.monotonic() + PATIENCE
    batches = Batches.open(mill.ledger_url)
    while not batches.newest():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    kept.pause("minutely")
    (running,) = kept.history("minutely")
    assert running.worker is not None
    os.kill(int(running.worker.rpartition("-")[2]), signal.SIGKILL)
    assert workers.pop(int(running.worker.rpartition("-")[2])).wait() == -signal.SIGKILL
    with database.writing() as connection:  # rather than wait for a minute
        connection.execute(update(firings).values(lease_until=0.0))

    while kept.history("minutely")[0].state in (FiringState.WAITING, FiringState.RUNNING):
        assert time.monotonic() < deadline, kept.history("minutely")
        time.sleep(0.05)
    (fired,) = kept.history("minutely")
    assert (fired.state, fired.attempt, fired.rows) == (FiringState.DONE, 2, PICTURES)
    assert fired.worker != running.worker
    batch = batches.find(fired.batch)
    while batches.counts(batch.id).open:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    counts = mill.ledger.counts()
    assert counts[State.SUCCEEDED] == sum(counts.values()) == PICTURES
    for opened in (kept, batches, database):
        opened.close()
