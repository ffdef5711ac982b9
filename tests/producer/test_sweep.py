"""Sweeps: what is asked for, and the sheet of what comes out."""

import json
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from producer import Client
from producer.sweep import make_sweep
from storage.errors import InvalidSpec
from tests.producer.conftest import Hand, Run

SHARED = {"prompt": "a cat", "model": "demo"}


def do(hand: Hand, count: int, fail: int | None = None) -> threading.Thread:
    def work() -> None:
        for index in range(count):
            while not hand.ledger.due("default"):
                time.sleep(0.02)
            hand.fail() if index == fail else hand.succeed()

    worker = threading.Thread(target=work)
    worker.start()
    return worker


def test_rows_are_strengths_and_columns_guidances() -> None:
    sweep = make_sweep(
        {"guidance_scale": [0.1, 5.0, 10.0], "strength": [0.4, 1.0]}, SHARED, b"picture"
    )
    found = [(r.step.strength, r.step.guidance_scale) for r in sweep.requests()]
    assert found == [(s, g) for s in (0.4, 1.0) for g in (0.1, 5.0, 10.0)]
    assert sweep.columns == 3
    assert sweep.caption(sweep.points[1]) == "strength 0.4, guidance_scale 5"
    assert len({sweep.name(point) for point in sweep.points}) == 6


def test_a_seed_left_open_is_one_for_all() -> None:
    sweep = make_sweep({"strength": [0.4, 0.6, 0.8]}, SHARED, b"picture")
    assert len({request.step.seed for request in sweep.requests()}) == 1
    assert sweep.columns == 3


def test_seeds_and_schedulers_are_swept_as_well() -> None:
    values = {"seed": [1, 2], "scheduler": ["DDIMScheduler", "PNDMScheduler"]}
    sweep = make_sweep(values, SHARED)
    found = [(r.step.scheduler, r.step.seed) for r in sweep.requests()]
    assert found == [
        ("DDIMScheduler", 1), ("DDIMScheduler", 2), ("PNDMScheduler", 1), ("PNDMScheduler", 2),
    ]  # fmt: skip
    assert sweep.columns == 2


def test_one_that_failed_is_a_gray_place_in_the_sheet() -> None:
    sweep = make_sweep({"seed": [1, 2]}, SHARED)
    sheet = sweep.sheet([Image.new("RGB", (8, 8), "red"), None], side=32)
    places = [sheet.getpixel((12 + column * (32 + 12) + 16, 12 + 16)) for column in (0, 1)]
    assert places == [(255, 0, 0), (211, 211, 211)]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"seed": [1, 2, 1]}, "seed: 1 stands in the list twice"),
        ({"strength": [0.5]}, "strength: it says how far from a picture to go"),
        ({"seed": range(100), "guidance_scale": [1, 2, 3, 4, 5]}, "at most 400 pictures, not 100"),
    ],
)
def test_what_is_no_sweep_is_said(values: dict[str, list[int]], sentence: str) -> None:
    with pytest.raises(InvalidSpec, match=sentence):
        make_sweep(values, SHARED)


def test_the_command_writes_the_pictures_and_one_grid(
    run: Run, hand: Hand, client: Client, picture: Path
) -> None:
    worker = do(hand, 4)
    ended = run("sweep", picture, "-p", "a cat", "--strength", "0.4,1.0", "--guidance", "0.1,5",
                "--seed", 7, "-o", "out")  # fmt: skip
    worker.join()
    assert (ended.status, ended.out) == (0, "out/grid.png\n")
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "grid.png",
        "strength-0.4_guidance_scale-0.1.png",
        "strength-0.4_guidance_scale-5.png",
        "strength-1_guidance_scale-0.1.png",
        "strength-1_guidance_scale-5.png",
    ]
    steps = [job.record.spec.steps[0] for job in reversed(client.jobs())]
    assert [(s.strength, s.guidance_scale, s.seed) for s in steps] == [
        (0.4, 0.1, 7), (0.4, 5.0, 7), (1.0, 0.1, 7), (1.0, 5.0, 7),
    ]  # fmt: skip
    with Image.open("out/grid.png") as grid:
        assert grid.width == 2 * (256 + 12) + 12
    # Nothing is overwritten, and nothing submitted for it.
    again = run("sweep", picture, "-p", "a cat", "--strength", "0.4,1.0", "-o", "out")
    assert again.status == 2
    assert "--force" in again.err
    assert len(client.jobs()) == 4


def test_one_failure_leaves_the_others_and_status_1(run: Run, hand: Hand) -> None:
    worker = do(hand, 2, fail=1)
    ended = run("sweep", "-p", "a cat", "--seed", "1,2", "-o", "out", "--json")
    worker.join()
    first, second, whole = map(json.loads, ended.out.splitlines())
    assert ended.status == 1
    assert (first["file"], second["file"]) == ("out/seed-1.png", None)
    assert (whole["grid"], whole["jobs"]) == ("out/grid.png", 2)
    assert first["batch"] == whole["batch"]
    assert "invalid_model" in ended.err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--strength", "0.4,x"], "strength: '0.4,x' is no list of numbers between commas"),
        (["--seed", "1.5"], "seed: '1.5' is no list of whole numbers between commas"),
        (["--scheduler", "DDIMScheduler,"], "scheduler: 'DDIMScheduler,' has an empty value"),
        (["--strength", "0.4,2"], "strength: Input should be less than or equal to 1"),
        (["--model", "demo,dem"], "did you mean demo?"),
    ],
)
def test_what_is_not_allowed_is_one_sentence(
    run: Run, client: Client, picture: Path, options: list[str], sentence: str
) -> None:
    ended = run("sweep", picture, "-p", "x", *options)
    assert ended.status == 2
    assert sentence in " ".join(ended.err.split())
    assert client.jobs() == []
