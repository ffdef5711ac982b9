"""Submitting datasets: every row is accounted for, and nothing is done twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from producer import Client
from producer.datasets import make_recipe, submit_dataset
from producer.datasets.submit import sample
from storage.batches import Batch, BatchRow, Status
from storage.errors import InvalidSpec
from storage.jobs import State
from tests.producer.conftest import Hand

RECIPE: dict[str, Any] = {"model": "demo", "prompt": "{prompt}, comic style", "strength": 0.6}


def picture(path: Path, color: str, prompt: str | None = "an apple") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), color).save(path)
    if prompt is not None:
        path.with_suffix(".txt").write_text(prompt)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures of the same name, and one beside them."""
    root = tmp_path / "in"
    for path, color in (("a/x.png", "red"), ("b/x.png", "lime"), ("b/y.png", "blue")):
        picture(root / path, color)
    return root


Submit = Callable[..., Batch]


@pytest.fixture
def submit(client: Client) -> Submit:
    def submit(source: Path | str, pilot: int = 0, **changes: Any) -> Batch:
        recipe = make_recipe({**RECIPE, **changes})
        return submit_dataset(client, str(source), recipe, pilot=pilot)

    return submit


def rows(client: Client, batch: Batch) -> list[BatchRow]:
    return list(client.batches.all_rows(batch.id))


def statuses(client: Client, batch: Batch) -> list[Status]:
    return [row.status for row in rows(client, batch)]


def test_each_row_becomes_a_job_with_a_name_of_its_own(
    client: Client, folder: Path, submit: Submit
) -> None:
    batch = submit(folder)
    found = rows(client, batch)
    assert (batch.name, batch.total, batch.held) == ("in", 3, False)
    assert batch.submitted_at is not None
    assert [(row.name, row.file, row.status) for row in found] == [
        ("a/x", "a/x.png", Status.QUEUED), ("b/x", "b/x.png", Status.QUEUED),
        ("b/y", "b/y.png", Status.QUEUED),
    ]  # fmt: skip
    assert found[0].cells == {"prompt": "an apple"}
    spec = client.job(found[0].job_id or "").record.spec
    assert spec is not None
    (step,) = spec.steps
    assert step.prompt == "an apple, comic style"
    assert step.seed is not None
    assert client.objects.exists(getattr(step, "image", ""))


def test_submitting_again_does_nothing_for_what_is_done(
    client: Client, hand: Hand, folder: Path, submit: Submit
) -> None:
    first = submit(folder)
    hand.succeed()
    hand.fail()
    again = submit(folder)
    assert statuses(client, first) == [Status.SUCCEEDED, Status.QUEUED, Status.QUEUED]
    assert statuses(client, again) == [Status.SKIPPED, Status.QUEUED, Status.QUEUED]
    assert [r.job_id for r in rows(client, again)] == [r.job_id for r in rows(client, first)]
    assert len(client.jobs()) == 3
    # The one that had failed runs for the batch that asked for it last; the others stay.
    batches = [client.job(row.job_id or "").record.batch for row in rows(client, again)]
    assert batches == [first.id, again.id, first.id]


def test_a_row_that_is_skipped_tells_what_becomes_of_its_job(
    client: Client, hand: Hand, folder: Path, submit: Submit
) -> None:
    submit(folder)
    again = submit(folder)
    assert statuses(client, again) == [Status.QUEUED] * 3
    hand.fail()
    assert statuses(client, again) == [Status.FAILED, Status.QUEUED, Status.QUEUED]
    assert client.batches.counts(again.id).codes == {"invalid_model": 1}


@pytest.mark.parametrize(
    "change", [{"prompt": "{prompt}, pencil"}, {"strength": 0.5}, {"keep_steps": True}]
)
def test_another_recipe_runs_anew(
    submit: Submit, client: Client, folder: Path, change: Any
) -> None:
    submit(folder)
    submit(folder, **change)
    assert len(client.jobs()) == 6


def test_labels_priority_and_places_make_no_other_job(
    client: Client, folder: Path, submit: Submit
) -> None:
    submit(folder)
    folder = folder.rename(folder.with_name("moved"))
    submit(folder, labels={"night": "2"}, priority=3)
    assert len(client.jobs()) == 3


def test_only_what_changed_runs_again(client: Client, folder: Path, submit: Submit) -> None:
    submit(folder)
    (folder / "b" / "y.txt").write_text("a pear")
    picture(folder / "a" / "x.png", "orange")
    picture(folder / "c.png", "black")
    batch = submit(folder)
    assert len(client.jobs()) == 6
    assert client.batches.counts(batch.id).rows == 4


def test_seeds_follow_from_the_picture_and_stay(
    client: Client, folder: Path, submit: Submit
) -> None:
    submit(folder)
    submit(folder, strength=0.5)
    seeds = [job.record.spec.steps[0].seed for job in client.jobs() if job.record.spec]
    assert seeds[:3] == seeds[3:]
    assert len(set(seeds)) == 3


def test_equal_rows_run_once(client: Client, tmp_path: Path, submit: Submit) -> None:
    picture(tmp_path / "a.png", "red")
    table = tmp_path / "list.csv"
    table.write_text("file_name,prompt\na.png,x\na.png,y\na.png,x\n")
    batch = submit(table)
    found = rows(client, batch)
    assert [row.name for row in found] == ["a", "a.row-1", "a.row-2"]
    assert found[0].job_id == found[2].job_id != found[1].job_id
    assert len(client.jobs()) == 2


def test_bad_rows_fail_with_file_line_and_reason_and_the_others_run(
    client: Client, tmp_path: Path, submit: Submit
) -> None:
    picture(tmp_path / "a.png", "red")
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    lines: list[dict[str, Any]] = [
        {"image": "a.png", "prompt": "x"},
        {"image": "none.png", "prompt": "x"},
        {"image": "broken.png", "prompt": "x"},
        {"image": "a.png", "prompt": " "},
        {"image": "a.png", "prompt": "x", "strength": 7},
        {"image": "a.png", "prompt": "x", "model": "dmo"},
        {"image": "s3://elsewhere/a.png", "prompt": "x"},
    ]
    table = tmp_path / "list.jsonl"
    table.write_text("".join(json.dumps(line) + "\n" for line in lines) + "{\n")
    batch = submit(table)
    found = rows(client, batch)
    assert [(row.place, row.status, row.code) for row in found] == [
        ("list.jsonl:1", Status.QUEUED, None),
        ("list.jsonl:2", Status.FAILED, "invalid_image"),
        ("list.jsonl:3", Status.FAILED, "invalid_image"),
        ("list.jsonl:4", Status.FAILED, "invalid_spec"),
        ("list.jsonl:5", Status.FAILED, "invalid_spec"),
        ("list.jsonl:6", Status.FAILED, "unknown_model"),
        ("list.jsonl:7", Status.FAILED, "invalid_spec"),
        ("list.jsonl:8", Status.FAILED, "unreadable_row"),
    ]
    reasons = [row.reason or "" for row in found]
    assert "there is no file" in reasons[1]
    assert "broken or cut short" in reasons[2]
    assert "names the column 'prompt'" in reasons[3]
    assert reasons[4].startswith("strength: ")
    assert "did you mean demo?" in reasons[5]
    assert "LATENTMILL_INPUT_BUCKETS" in reasons[6]
    counts = client.batches.counts(batch.id)
    assert counts.rows == batch.total == 8
    assert counts.codes == {
        "invalid_image": 2, "invalid_spec": 3, "unknown_model": 1, "unreadable_row": 1,
    }  # fmt: skip


def test_a_key_of_the_source_that_comes_twice_is_a_mistake(
    client: Client, tmp_path: Path, submit: Submit
) -> None:
    request = {"custom_id": "r-1", "method": "POST", "url": "/v1/images/generations"}
    text = json.dumps({**request, "body": {"model": "demo", "prompt": "x"}}) + "\n"
    (tmp_path / "batch.jsonl").write_text(text * 2)
    batch = submit(tmp_path / "batch.jsonl", prompt="{prompt}")
    first, second = rows(client, batch)
    assert (first.name, first.status) == ("r-1", Status.QUEUED)
    assert (second.name, second.status, second.code) == (None, Status.FAILED, "duplicate_key")


def test_a_pilot_runs_first_and_the_others_wait_for_their_release(
    client: Client, hand: Hand, tmp_path: Path, submit: Submit
) -> None:
    lines = "".join(f'{{"prompt": "number {n}"}}\n' for n in range(9))
    (tmp_path / "list.jsonl").write_text(lines)
    batch = submit(tmp_path / "list.jsonl", pilot=3)
    assert (batch.pilot, batch.held) == ((1, 4, 7), True)
    assert client.batches.counts(batch.id).statuses[Status.HELD] == 6
    for _ in batch.pilot:
        hand.succeed()
    assert client.ledger.claim(worker="w", pool="default", lease_seconds=9) is None
    assert client.batches.release(batch.id) == 6
    assert not client.batches.find(batch.id).held
    hand.succeed()
    assert client.batches.counts(batch.id).statuses[Status.HELD] == 0


def test_submitting_without_a_pilot_lets_held_rows_run(
    client: Client, hand: Hand, folder: Path, submit: Submit
) -> None:
    submit(folder, pilot=1)
    client.cancel(*[client.jobs()[0].id])
    again = submit(folder)
    assert statuses(client, again) == [Status.QUEUED] * 3
    for _ in range(3):
        hand.succeed()


@pytest.mark.parametrize(
    ("rows", "size", "numbers"),
    [(100, 4, [12, 37, 62, 87]), (3, 8, [0, 1, 2]), (0, 8, []), (9, 1, [4])],
)
def test_a_sample_is_spread(rows: int, size: int, numbers: list[int]) -> None:
    assert sample(rows, size) == numbers


def test_a_source_that_cannot_be_read_leaves_no_batch(
    client: Client, tmp_path: Path, submit: Submit
) -> None:
    for text, sentence in (("", "it is empty"), ("a,b\n", "there is nothing in")):
        (tmp_path / "list.csv").write_text(text)
        with pytest.raises(InvalidSpec, match=sentence):
            submit(tmp_path / "list.csv")
    assert client.batches.newest() == []


def test_pictures_below_a_prefix_of_s3_are_not_copied(
    client: Client, hand: Hand, folder: Path, submit: Submit
) -> None:
    for file in folder.rglob("*.*"):
        key = f"batches/{folder.parent.name}/{file.relative_to(folder)}"
        client.objects.put(key, file.read_bytes(), "image/png")
    source = f"s3://{client.settings.s3_bucket}/batches/{folder.parent.name}"
    batch = submit(source)
    found = rows(client, batch)
    assert [(row.name, row.file) for row in found] == [
        ("a/x", "a/x.png"), ("b/x", "b/x.png"), ("b/y", "b/y.png"),
    ]  # fmt: skip
    spec = client.job(found[0].job_id or "").record.spec
    assert spec is not None
    assert getattr(spec.steps[0], "image", "") == f"{source}/a/x.png"
    assert spec.steps[0].prompt == "an apple, comic style"
    submit(source)
    assert len(client.jobs(state=State.QUEUED)) == 3


def test_a_table_in_s3_names_pictures_beside_it(
    client: Client, folder: Path, submit: Submit
) -> None:
    base = f"batches/{folder.parent.name}-table"
    client.objects.put(f"{base}/metadata.csv", b"file_name,prompt\na/x.png,x\n", "text/csv")
    url = f"s3://{client.settings.s3_bucket}/{base}"
    for source in (url, f"{url}/metadata.csv"):
        (row,) = rows(client, submit(source))
        assert (row.place, row.name) == ("metadata.csv:2", "a/x")
        spec = client.job(row.job_id or "").record.spec
        assert spec is not None
        assert getattr(spec.steps[0], "image", "") == f"{url}/a/x.png"
    with pytest.raises(InvalidSpec, match="no pictures below"):
        submit(f"{url}/nothing-here")
