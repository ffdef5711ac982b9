"""`latentmill batch …`, its jobs done by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from producer import Client
from producer.datasets.preflight import is_too_long
from producer.datasets.speed import pictures_a_second
from producer.datasets.verify import difference
from storage.batches import Status
from tests.producer.conftest import Hand, Run

Make = Callable[..., list[str]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Arguments of `batch submit` for a table of so many pictures and some other lines."""

    def make(count: int = 4, *lines: dict[str, Any], **recipe: Any) -> list[str]:
        values: list[dict[str, Any]] = []
        for number in range(count):
            Image.new("RGB", (64, 64), (number * 9, 0, 99)).save(tmp_path / f"{number}.png")
            values.append({"file_name": f"{number}.png", "prompt": f"apple {number}"})
        text = "".join(json.dumps(value) + "\n" for value in [*values, *lines])
        (tmp_path / "apples.jsonl").write_text(text)
        shared = {"model": "demo", "prompt": "{prompt}, comic", "strength": 0.6, **recipe}
        (tmp_path / "recipe.yaml").write_text(json.dumps(shared))
        return [str(tmp_path / "apples.jsonl"), "--recipe", str(tmp_path / "recipe.yaml")]

    return make


def line(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text.splitlines()[-1])
    return found


def test_a_dataset_goes_in_and_every_row_is_accounted_for(
    run: Run, make: Make, hand: Hand, client: Client
) -> None:
    arguments = make(3, {"file_name": "none.png", "prompt": "x"})
    said = run("batch", "submit", *arguments)
    assert said.status == 0
    assert "4 rows: 3 queued, 1 failed" in said.out
    hand.succeed()
    hand.fail(message="too bad")
    run("batch", "cancel", "apples.jsonl")

    report = run("batch", "report", "apples.jsonl", "--json")
    values = line(report.out)
    assert report.status == 0
    assert {k: v for k, v in values["rows"].items() if v} == {
        "succeeded": 1, "failed": 2, "canceled": 1,
    }  # fmt: skip
    assert values["failed_by_code"] == {"invalid_image": 1, "invalid_model": 1}
    lines = [json.loads(each) for each in Path("retry.jsonl").read_text().splitlines()]
    assert [each["prompt"] for each in lines] == ["apple 1", "apple 2", "x"]
    assert Path(lines[0]["image"]).is_file()

    for_people = run("batch", "report", "apples.jsonl")
    assert "too bad" in for_people.out
    assert "apples.jsonl:4" in for_people.out


def test_retry_jsonl_is_a_source_whose_jobs_are_the_same(
    run: Run, make: Make, hand: Hand, client: Client
) -> None:
    arguments = make(2)
    run("batch", "submit", *arguments)
    hand.succeed()
    hand.fail()
    run("batch", "report", "apples.jsonl")
    run("batch", "submit", "retry.jsonl", *arguments[1:])
    assert len(client.jobs()) == 2
    assert hand.succeed().batch == client.batches.find("retry.jsonl").id


def test_a_result_that_is_gone_is_reported_and_the_status_says_so(
    run: Run, make: Make, hand: Hand, client: Client
) -> None:
    run("batch", "submit", *make(3))
    done = [hand.succeed() for _ in range(3)]
    assert run("batch", "report", "apples.jsonl").status == 0
    client.objects.delete(done[1].artifact or "")
    report = run("batch", "report", "apples.jsonl", "--json")
    assert report.status == 1
    values = line(report.out)
    assert (values["missing_results"], values["unaccounted"]) == (1, 1)
    assert values["missing_keys"] == [done[1].artifact]


def test_a_submission_that_did_not_end_is_not_accounted_for(
    run: Run, make: Make, client: Client
) -> None:
    run("batch", "submit", *make(1))
    batch = client.batches.create(name="broken off", source="x", recipe={})
    report = run("batch", "report", batch.id)
    assert report.status == 1
    assert "submit the same again" in report.out


def test_a_dry_run_stores_nothing_and_writes_the_bad_rows(
    run: Run, make: Make, client: Client
) -> None:
    long = {"file_name": "0.png", "prompt": "apple " * 80}
    arguments = make(2, {"file_name": "none.png", "prompt": "x"}, long)
    said = run("batch", "submit", *arguments, "--dry-run", "--json")
    assert said.status == 1
    assert line(said.out) == {
        "rows": 4, "done": 0, "jobs": {"img2img": 3}, "bad": 1, "bad_file": "bad.jsonl",
        "bad_by_code": {"invalid_image": 1}, "long_prompts": 1, "sizes": 1,
    }  # fmt: skip
    (bad,) = (json.loads(each) for each in Path("bad.jsonl").read_text().splitlines())
    assert (bad["place"], bad["code"]) == ("apples.jsonl:3", "invalid_image")
    assert client.jobs() == []
    assert client.batches.newest() == []
    assert "CLIP reads only the beginning (apples.jsonl:4" in run(
        "batch", "submit", *arguments, "--dry-run"
    ).out.replace("\n", " ")


def test_a_dry_run_warns_of_many_sizes(
    unset: Run, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures = [{"file_name": f"wide-{i}.png", "prompt": "a pear"} for i in range(10)]
    for i, each in enumerate(pictures):
        # Two of them in one multiple of 8.
        Image.new("RGB", (100 + 4 * i, 64), "red").save(tmp_path / each["file_name"])
    said = unset("batch", "submit", *make(0, *pictures), "--dry-run", "--json")
    assert line(said.out)["sizes"] == 6
    assert "sizes" not in unset("batch", "submit", *make(0, *pictures), "--dry-run").out

    pictures *= 2
    for i, each in enumerate(pictures):
        pictures[i] = {**each, "height": 64 + 8 * (i // 10)}
    warned = unset("batch", "submit", *make(0, *pictures), "--dry-run").out
    assert "the results have 12 sizes, those of their pictures" in warned.replace("\n", " ")
    one = unset("batch", "submit", *make(0, *pictures, width=64), "--dry-run", "--json")
    assert line(one.out)["sizes"] == 0


def test_a_dry_run_needs_no_services(
    unset: Run, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = unset("batch", "submit", *make(2), "--dry-run")
    assert said.status == 0
    assert "2 img2img" in said.out


def test_a_pilot_shows_a_sheet_and_what_the_rest_will_take(
    run: Run, make: Make, hand: Hand, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = make(8)
    monkeypatch.setattr("producer.commands.batch_pilot.follow", lambda *_, **__: None)
    run("batch", "submit", *arguments, "--pilot", "2")
    batch = client.batches.find("apples.jsonl")
    assert batch.pilot == (2, 6)
    for _ in batch.pilot:
        hand.succeed()
    said = run("batch", "pilot", "apples.jsonl", "--sheet", "sheet.png", "--json")
    values = line(said.out)
    assert (values["succeeded"], values["held"]) == (2, 6)
    assert values["seconds"] > 0
    assert values["bytes"] > 0
    with Image.open("sheet.png") as sheet:
        assert sheet.width > sheet.height  # two rows' inputs and results beside each other
    assert "6 rows may run now" in run("batch", "release", "apples.jsonl").out
    assert "no row was held back" in run("batch", "release", "apples.jsonl").out


def test_a_batch_without_a_pilot_has_no_sheet(run: Run, make: Make) -> None:
    run("batch", "submit", *make(1))
    said = run("batch", "pilot", "apples.jsonl")
    assert (said.status, "has no pilot" in said.err) == (2, True)


def test_watch_ends_when_nothing_runs_and_says_whether_all_is_well(
    run: Run, make: Make, hand: Hand
) -> None:
    run("batch", "submit", *make(2))
    hand.succeed()
    hand.succeed()
    said = run("batch", "watch", "apples.jsonl", "--json")
    assert said.status == 0
    assert line(said.out)["rows"]["succeeded"] == 2
    run("batch", "submit", *make(3))
    hand.fail()
    said = run("batch", "watch", "apples.jsonl")
    assert said.status == 1
    assert "invalid_model 1" in said.err


def test_retry_takes_what_earlier_batches_made(
    run: Run, make: Make, hand: Hand, client: Client
) -> None:
    run("batch", "submit", *make(2), "--name", "first")
    run("batch", "submit", *make(3), "--name", "second")
    for _ in range(3):
        hand.fail()
    again = run("batch", "retry", "second", "--json")
    assert line(again.out)["queued"] == 3
    counts = client.batches.counts(client.batches.find("second").id)
    assert counts.statuses[Status.QUEUED] == 3


def test_batches_are_listed_and_shown(run: Run, make: Make) -> None:
    run("batch", "submit", *make(2), "--name", "first")
    run("batch", "submit", *make(2), "--name", "second")
    listed = run("batch", "list", "--json").out.splitlines()
    assert [json.loads(each)["name"] for each in listed] == ["second", "first"]
    assert "2 queued" in run("batch", "list").out
    shown = line(run("batch", "show", "first", "--json").out)
    assert (shown["total"], shown["recipe"]["prompt"]) == (2, "{prompt}, comic")
    assert run("batch", "show", "third").status == 4


def test_what_cannot_be_submitted_is_one_sentence(run: Run, make: Make, tmp_path: Path) -> None:
    arguments = make(1)
    for wrong, sentence in (
        (["nowhere", *arguments[1:]], "there is no file or folder 'nowhere'"),
        ([arguments[0], "-r", "none.yaml"], "none.yaml: No such file"),
    ):
        said = run("batch", "submit", *wrong)
        assert said.status == 2
        assert sentence in said.err


@pytest.mark.parametrize(
    ("prompt", "is_long"),
    [("apple " * 75, False), ("apple " * 76, True), ("don't, " * 25, False), ("1" * 76, True)],
)
def test_prompts_that_clip_surely_cuts_are_known_without_a_tokenizer(
    prompt: str, is_long: bool
) -> None:
    assert is_too_long(prompt) is is_long


@pytest.mark.parametrize(
    ("runs", "speed"),
    [
        ([], None),
        ([(2.0, 10.0), (2.0, 12.0), (2.0, 14.0)], 0.5),  # one after the other
        ([(6.0, 20.0), (6.0, 20.0), (6.0, 20.0), (17.0, 20.0)], 4 / 6),  # together; one compiles
        ([(2.0, 10.0), (2.0, 11.0)], 2 / 3),  # half of each beside the other
        ([(0.0, 10.0)], None),
    ],
)
def test_speed_is_measured_without_what_only_the_first_has_to_wait_for(
    runs: list[tuple[float, float]], speed: float | None
) -> None:
    assert pictures_a_second(runs) == (speed if speed is None else pytest.approx(speed))


def test_pictures_differ_by_their_worst_sample() -> None:
    one, other = Image.new("RGB", (4, 4), (9, 9, 9)), Image.new("RGB", (4, 4), (9, 9, 9))
    assert difference(one, other) == 0
    other.putpixel((3, 3), (9, 2, 9))
    assert difference(one, other) == 7
    assert difference(one, Image.new("RGB", (4, 5), (9, 9, 9))) == 255
