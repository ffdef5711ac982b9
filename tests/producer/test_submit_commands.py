"""`img2img`, `text2img` and `chain` as a user types them."""

import json
import re
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from producer import Client
from storage.jobs import State
from storage.settings import PREFIX
from tests.producer.conftest import Hand, Run

pytestmark = pytest.mark.timeout(30)

ID = re.compile(r"[0-9a-z]{26}")


@pytest.fixture
def worker(hand: Hand) -> threading.Thread:
    """A hand that does the next job as soon as there is one."""

    def work() -> None:
        while not hand.ledger.due("default"):
            time.sleep(0.05)
        hand.succeed("prompt is longer than the model's 77 tokens; not used: 'tail'")

    return threading.Thread(target=work)


def size_of(file: str) -> tuple[int, int]:
    with Image.open(file) as image:
        return image.size


def jobs_entered(client: Client) -> int:
    return sum(client.ledger.counts().values())


def test_img2img_waits_and_writes_the_picture(
    run: Run, picture: Path, worker: threading.Thread
) -> None:
    worker.start()
    ended = run("img2img", picture, "-p", "a cat, comic style", "-o", "comic.png")
    worker.join()
    assert (ended.status, ended.out) == (0, "comic.png\n")
    assert size_of("comic.png") == (16, 16)
    assert "warning: prompt is longer than the model's 77 tokens" in ended.err


def test_json_is_one_line_that_names_the_file(
    run: Run, picture: Path, worker: threading.Thread
) -> None:
    worker.start()
    ended = run("img2img", picture, "-p", "a [bold]cat", "--json")
    worker.join()
    said = json.loads(ended.out)
    assert ended.out.count("\n") == 1
    assert (said["state"], said["spec"]["steps"][0]["prompt"]) == ("succeeded", "a [bold]cat")
    assert said["file"] == f"{said['id']}.png"
    assert Path(said["file"]).is_file()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", said["created_at"])


def test_no_wait_says_the_id_and_leaves(run: Run, client: Client, picture: Path) -> None:
    ended = run("img2img", picture, "-p", "x", "--no-wait", "--label", "set=fruit",
                "--strength", 0.6, "--steps", 30, "--guidance", 4, "--seed", 7, "--width", 64,
                "--height", 32, "--scheduler", "DDIMScheduler", "--priority", 5,
                "--max-attempts", 2, "--key", "k", "-n", "blurry", "--lora", "ink.safetensors=0.8",
                "--lora", "a=b/c.safetensors=2", "--prompt-weighting", "--aesthetic-score", 6.5,
                "--negative-aesthetic-score", 2, "--prior-guidance", 3,
                "--prior-steps", 9)  # fmt: skip
    assert ended.status == 0
    assert ID.fullmatch(ended.out.strip())
    spec = client.job(ended.out.strip()).record.spec
    assert spec.model_dump(exclude={"steps"}) == {
        "key": "k", "priority": 5, "max_attempts": 2, "labels": {"set": "fruit"},
        "keep_steps": False, "check_output": True, "run_at": None, "deadline": None,
        "webhook_url": None,
    }  # fmt: skip
    step = spec.steps[0].model_dump(exclude={"image"}, exclude_defaults=True) | {"kind": "img2img"}
    assert step == {
        "kind": "img2img", "model": "demo", "prompt": "x", "negative_prompt": "blurry",
        "num_inference_steps": 30, "guidance_scale": 4.0, "seed": 7, "width": 64, "height": 32,
        "scheduler": "DDIMScheduler", "strength": 0.6, "prompt_weighting": True,
        "loras": (
            {"path": "ink.safetensors", "weight": 0.8},
            {"path": "a=b/c.safetensors", "weight": 2.0},
        ),
        "aesthetic_score": 6.5, "negative_aesthetic_score": 2.0, "prior_guidance_scale": 3.0,
        "prior_num_inference_steps": 9,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--strength", "1.5"], "strength: Input should be less than or equal to 1"),
        (
            ["--strength", "0.01", "--steps", "50"],
            "leaves no step to run: it must be at least 0.02",
        ),
        (["--steps", "0"], "num_inference_steps: "),
        (["--width", "65"], "width: Input should be a multiple of 8"),
        (["--model", "dem"], "did you mean demo?"),
        (["--scheduler", "Euler"], "scheduler: 'Euler' is not one of DDIMScheduler"),
        (["--lora", "ink=much"], "lora: 'ink=much' is not of the form FILE=WEIGHT"),
        (["--prior-steps", "0"], "prior_num_inference_steps: "),
        (["--scheduler", "{"], "scheduler: not JSON"),
        (["--label", "fruit"], "label: 'fruit' is not of the form name=value"),
        (["--no-wait", "-o", "x.png"], "output: --no-wait leaves before there is a picture"),
        (["-o", "there.png"], "output: 'there.png' is there already; --force replaces it"),
        (["--stength", "0.5"], "No such option: --stength"),
        (["--seed", "x"], "Invalid value for '--seed'"),
    ],
)
def test_what_is_not_allowed_is_one_sentence_and_status_2(
    run: Run, client: Client, picture: Path, options: list[str], sentence: str
) -> None:
    Path("there.png").touch()
    ended = run("img2img", picture, "-p", "x", *options)
    assert ended.status == 2
    assert sentence in " ".join(ended.err.split())
    assert (ended.out, jobs_entered(client)) == ("", 0)


def test_a_missing_picture_is_one_line(run: Run, client: Client) -> None:
    ended = run("img2img", "nowhere.png", "-p", "x")
    assert (ended.status, ended.err) == (2, "latentmill: image: there is no file 'nowhere.png'\n")
    assert jobs_entered(client) == 0


def test_a_file_that_is_there_is_replaced_only_by_force(
    run: Run, picture: Path, worker: threading.Thread
) -> None:
    Path("there.png").write_text("mine")
    worker.start()
    ended = run("text2img", "-p", "a cat", "-o", "there.png", "--force")
    worker.join()
    assert ended.status == 0
    assert size_of("there.png") == (16, 16)


def test_a_place_that_cannot_be_written_says_where_the_picture_is(
    run: Run, worker: threading.Thread
) -> None:
    Path("file").touch()
    worker.start()
    ended = run("text2img", "-p", "a cat", "-o", "file/cat.png")
    worker.join()
    assert ended.status == 2
    assert re.search(r"'file/cat.png' cannot be written: .*latentmill fetch \w{26}\n$", ended.err)


def test_a_chain_comes_from_a_file_with_paths_beside_it(
    run: Run, client: Client, picture: Path
) -> None:
    steps = [
        {"kind": "img2img", "model": "demo", "prompt": "comic", "image": picture.name},
        {"kind": "img2img", "model": "demo", "prompt": "pixel art", "strength": 0.5},
    ]
    file = picture.parent / "chain.json"
    file.write_text(json.dumps({"steps": steps, "keep_steps": True, "labels": {"a": "b"}}))
    ended = run("chain", file, "--no-wait", "--json")
    assert ended.status == 0
    spec = client.job(json.loads(ended.out)["id"]).record.spec
    assert [step.prompt for step in spec.steps] == ["comic", "pixel art"]
    assert (spec.keep_steps, spec.labels) == (True, {"a": "b"})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "chain.json: not JSON"),
        ("[]", 'chain.json: it must hold {"steps": [{…}, …]}'),
        ('{"steps": [1]}', 'chain.json: it must hold {"steps": [{…}, …]}'),
        ('{"steps": [{"kind": ["x"]}]}', "steps.0.kind: must be text2img or img2img"),
        ('{"steps": [{"kind": "text2img"}]}', "steps.0.model: Field required"),
        ('{"steps": [{"kind": "text2img", "model": "demo", "prompt": "x", "size": 8}]}',
         "steps.0.size: no such field"),
        ('{"steps": [], "keep": true}', "keep: no such field"),
    ],
)  # fmt: skip
def test_a_chain_file_that_is_wrong_is_named_with_its_field(
    run: Run, client: Client, text: str, sentence: str
) -> None:
    Path("chain.json").write_text(text)
    ended = run("chain", "chain.json")
    assert (ended.status, jobs_entered(client)) == (2, 0)
    assert sentence in ended.err
    assert run("chain", "missing.json").status == 2


def test_a_failed_job_is_status_1_with_its_reason(run: Run, hand: Hand) -> None:
    def work() -> None:
        while not hand.ledger.due("default"):
            time.sleep(0.05)
        hand.fail("bad_output", "the picture is black")

    worker = threading.Thread(target=work)
    worker.start()
    ended = run("text2img", "-p", "x", "--json")
    worker.join()
    said = json.loads(ended.out)
    assert (ended.status, said["state"], said["file"]) == (1, "failed", None)
    assert ended.err == f"latentmill: job {said['id']} failed (bad_output): the picture is black\n"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("DATABASE_URL", "postgresql://u:hunter2@127.0.0.1:9/x", "cannot be used"),
        ("DATABASE_URL", "sqlite:////nowhere/at/all", "cannot be used"),
        ("DATABASE_URL", "mysql://x", "is not supported"),
        ("S3_ENDPOINT_URL", "http://127.0.0.1:9", "cannot be used"),
        ("S3_SECRET_KEY", "hunter2", "refuses these credentials"),
        ("LEASE_SECONDS", "soon", "LATENTMILL_LEASE_SECONDS"),
    ],
)
def test_a_service_that_cannot_be_used_is_one_sentence_and_status_3(
    run: Run, client: Client, picture: Path, monkeypatch: pytest.MonkeyPatch,
    name: str, value: str, sentence: str,
) -> None:  # fmt: skip
    monkeypatch.setenv(PREFIX + name, value)
    ended = run("img2img", picture, "-p", "x")
    assert ended.status == 3
    assert sentence in ended.err
    assert ended.err.count("\n") == 1
    assert "hunter2" not in ended.err
    assert jobs_entered(client) == 0


def test_without_any_service_it_says_how_to_start_one(unset: Run, picture: Path) -> None:
    ended = unset("img2img", picture, "-p", "x")
    assert ended.status == 3
    assert "start one with `latentmill up`" in ended.err


def test_without_a_broker_the_job_is_entered_with_a_warning(
    run: Run, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{PREFIX}REDIS_URL", "redis://127.0.0.1:9")
    ended = run("text2img", "-p", "x", "--no-wait")
    assert ended.status == 0
    assert client.job(ended.out.strip()).state is State.QUEUED
    assert ended.err.startswith("latentmill: warning: the broker at redis://127.0.0.1:9")
    assert ended.err.endswith("the job is in the ledger, and a worker will find it there\n")
