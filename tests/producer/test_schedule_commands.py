"""`schedule …` as a user types it."""

import json
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from PIL import Image

from producer import Client
from tests.producer.conftest import Run

pytestmark = pytest.mark.timeout(30)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text("model: demo\nprompt: an apple\nstrength: 0.6\n")
    return file


@pytest.fixture
def add(run: Run, recipe: Path, tmp_path: Path) -> Run:
    folder = tmp_path / "incoming"
    folder.mkdir()
    Image.new("RGB", (64, 64), "red").save(folder / "red.png")

    def added(*options: object) -> object:
        return run("schedule", "add", "nightly", "--source", folder, "--recipe", recipe,
                   *(options or ("--cron", "0 2 * * *")))  # fmt: skip

    return added  # type: ignore[return-value]


def test_a_schedule_says_when_it_comes_next_by_its_own_clocks(
    run: Run, add: Run, client: Client, tmp_path: Path
) -> None:
    ended = add("--cron", "0 2 * * *", "--timezone", "Europe/Berlin", "--overlap", "queue",
                "--misfire", "skip")  # fmt: skip
    assert ended.status == 0
    kept = client.schedules.find("nightly")
    assert kept.next_at is not None
    following = datetime.fromtimestamp(kept.next_at, ZoneInfo("Europe/Berlin"))
    assert (following.hour, following.minute) == (2, 0)
    assert ended.out == f"nightly: next {following:%Y-%m-%d %H:%M %Z}\n"
    assert kept.source == str(tmp_path / "incoming")
    assert kept.recipe == {"model": "demo", "prompt": "an apple", "strength": 0.6}
    assert (kept.misfire, kept.overlap) == ("skip", "queue")
    assert f"{following:%Y-%m-%d}" in run("schedule", "list").out


def test_pause_resume_and_remove(run: Run, add: Run, client: Client) -> None:
    add()
    assert run("schedule", "pause", "nightly").out == "nightly: next paused\n"
    assert json.loads(run("schedule", "list", "--json").out)["paused"] is True
    assert json.loads(run("schedule", "resume", "nightly", "--json").out)["paused"] is False
    assert run("schedule", "remove", "nightly").out == "nightly: removed\n"
    assert client.schedules.all() == []


def test_run_now_and_history_name_the_batch(run: Run, add: Run, client: Client) -> None:
    add()
    said = run("schedule", "run-now", "nightly")
    batch = said.out.split()[-1]
    assert said.out.startswith("nightly: a worker will submit batch nightly-2")
    firing = client.schedules.claim("w")
    assert firing is not None
    ended = run("schedule", "fire", "nightly", repr(firing.due_at), firing.attempt)
    assert ended.status == 0
    told = json.loads(run("schedule", "history", "nightly", "--json").out)
    assert (told["state"], told["batch"], told["rows"], told["jobs"]) == ("done", batch, 1, 1)
    assert "done" in run("schedule", "history", "nightly").out
    assert json.loads(run("schedule", "list", "--json").out)["last"] == told
    # Its job has not run: the next one is skipped, and says why.
    again = run("schedule", "run-now", "nightly")
    assert "skipped: the batch before" in again.out
    # What was claimed is done once.
    twice = run("schedule", "fire", "nightly", repr(firing.due_at), firing.attempt)
    assert twice.status == 2
    assert "another worker fires schedule nightly" in twice.err
    assert len(client.jobs()) == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--cron", "0 2 * *"], "cron: '0 2 * *' has 4 fields, not 5"),
        (["--cron", "0 2 * * *", "--timezone", "Europe/Berln"], "did you mean Europe/Berlin?"),
        (["--cron", "0 2 * * *", "--misfire", "x"], "misfire: 'x' is not one of run-once, skip"),
        (["--cron", "0 2 * * *", "--overlap", "x"], "overlap: 'x' is not one of skip, queue"),
        (["--cron", "0 2 * * *", "--source", "nowhere"], "there is no file or folder 'nowhere'"),
        (["--cron", "0 2 * * *", "--source", "s3://others/x/"], "'s3://others/x/'"),
        (["--cron", "0 2 * * *", "--recipe", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_what_is_not_allowed_is_one_sentence(
    add: Run, client: Client, options: list[str], sentence: str
) -> None:
    ended = add(*options)
    assert ended.status == 2
    assert sentence in " ".join(ended.err.split())
    assert client.schedules.all() == []


def test_a_schedule_that_is_not_there_is_status_4(run: Run) -> None:
    for command in ("pause", "resume", "remove", "run-now", "history"):
        ended = run("schedule", command, "x")
        assert (ended.status, ended.out) == (4, "")
        assert "schedule 'x': the ledger has none of this name" in ended.err
