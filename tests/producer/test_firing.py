"""What a firing submits, and what it records."""

import time
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import update

from producer import Client
from producer.firing import RETRY, fire
from storage.database import Database
from storage.errors import ClaimLost, InvalidSpec, ObjectsUnavailable
from storage.schedule_tables import firings
from storage.schedules import Firing, FiringState
from storage.settings import Settings
from tests.producer.conftest import Hand

RECIPE = {"model": "demo", "prompt": "an apple", "strength": 0.6}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "incoming"
    root.mkdir()
    for color in ("red", "lime"):
        Image.new("RGB", (64, 64), color).save(root / f"{color}.png")
    return root


def claimed(client: Client, source: object, name: str = "nightly") -> Firing:
    if name not in [schedule.name for schedule in client.schedules.all()]:
        client.schedules.add(name=name, cron="0 2 * * *", source=str(source), recipe=RECIPE)
    client.schedules.run_now(name)
    firing = client.schedules.claim("w")
    assert firing is not None
    return firing


def test_a_firing_makes_a_batch_and_says_so(client: Client, folder: Path) -> None:
    (folder / "broken.png").write_bytes(b"no picture")
    done = fire(client, claimed(client, folder))
    assert (done.state, done.rows, done.jobs, done.refused) == (FiringState.DONE, 3, 2, 1)
    batch = client.batches.find(done.batch)
    assert (batch.source, batch.total) == (str(folder), 3)
    assert len(client.jobs(batch=batch.id)) == 2


def test_the_next_firing_runs_only_what_is_new(client: Client, hand: Hand, folder: Path) -> None:
    fire(client, claimed(client, folder))
    hand.succeed()
    hand.succeed()
    Image.new("RGB", (64, 64), "blue").save(folder / "blue.png")
    done = fire(client, claimed(client, folder))
    assert (done.rows, done.jobs) == (3, 1)
    assert len(client.jobs()) == 3


def test_nothing_that_came_in_is_no_mistake(client: Client, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = fire(client, claimed(client, empty))
    assert (done.state, done.rows, done.jobs) == (FiringState.DONE, 0, 0)
    assert client.batches.newest() == []


def test_a_source_that_is_gone_is_recorded(client: Client, tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec):
        fire(client, claimed(client, tmp_path / "gone"))
    (told,) = client.schedules.history("nightly")
    assert (told.state, told.error_code) == (FiringState.FAILED, "invalid_spec")
    assert told.error is not None
    assert "there is no file or folder" in told.error


def test_a_store_that_is_away_is_tried_again_later(
    client: Client, settings: Settings, folder: Path
) -> None:
    away = Client(settings.model_copy(update={"s3_endpoint_url": "http://127.0.0.1:9"}))
    with pytest.raises(ObjectsUnavailable):
        fire(away, claimed(client, folder))
    (told,) = client.schedules.history("nightly")
    assert (told.state, told.error_code) == (FiringState.RUNNING, "objects_unavailable")
    database = Database(settings.database_url.get_secret_value())  # type: ignore[union-attr]
    with database.writing() as connection:
        (lease,) = connection.execute(firings.select().with_only_columns(firings.c.lease_until))
        assert 0 < lease.lease_until - time.time() <= RETRY
        connection.execute(update(firings).values(lease_until=0.0))
    database.close()
    again = client.schedules.claim("other")
    assert again is not None
    assert fire(client, again).jobs == 2


def test_one_that_was_taken_over_records_nothing(client: Client, folder: Path) -> None:
    firing = claimed(client, folder)
    client.schedules.remove("nightly")
    with pytest.raises(ClaimLost):
        fire(client, firing)
    assert client.schedules.all() == []
