"""`jobs`, `show`, `wait` and `fetch` as a user types them."""

import json
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from producer import Client, Img2Img, Job, Text2Img
from tests.producer.conftest import Hand, Run

pytestmark = pytest.mark.timeout(60)

RED: dict[str, Any] = {"model": "demo", "prompt": "a red apple"}
CUT = "prompt is longer than the model's 77 tokens; not used: 'tail'"


@pytest.fixture
def chain(client: Client) -> Job:
    return client.submit([Text2Img(**RED), Img2Img(**RED)], keep_steps=True)


def test_jobs_are_listed_with_their_whole_ids(run: Run, client: Client) -> None:
    odd = client.submit(Text2Img(model="demo", prompt="[/bold] [red]x"), labels={"set": "odd"})
    client.submit(Text2Img(model="demo", prompt="word " * 200))
    ended = run("jobs")
    assert ended.status == 0
    assert odd.id in ended.out
    assert "[/bold]" in ended.out
    assert len(ended.out.splitlines()) == 3  # a line each, however long the prompt
    created = client.job(odd.id).record.created_at
    minute = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%d %H:%M")
    line = next(line for line in ended.out.splitlines() if odd.id in line)
    assert line.split()[:5] == [odd.id, "queued", "0/1", "demo", minute[:10]]
    assert minute in line
    assert run("jobs", "--label", "set=odd", "--state", "queued").out.count("queued") == 1


def test_jobs_as_json_are_a_line_each(run: Run, client: Client) -> None:
    ids = [client.submit(Text2Img(**RED)).id for _ in range(3)]
    lines = run("jobs", "--limit", 2, "--json").out.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [ids[2], ids[1]]
    (line,) = run("jobs", "--before", ids[1], "--json").out.splitlines()
    assert json.loads(line)["id"] == ids[0]


def test_show_tells_each_step_with_its_warnings(run: Run, chain: Job, hand: Hand) -> None:
    hand.succeed(CUT)
    said = " ".join(run("show", chain.id).out.split())
    for part in (chain.id, "succeeded", "step 1 of 2: text2img", "step 2 of 2: img2img",
                 "a red apple", "77 tokens", "step-0.png", "result.png", "by-hand"):  # fmt: skip
        assert part in said
    as_json = json.loads(run("show", chain.id, "--json").out)
    assert as_json["steps"][1]["warnings"] == [CUT]


def test_show_tells_every_attempt_with_its_error(run: Run, chain: Job, hand: Hand) -> None:
    hand.ledger.fail(hand.claim(), code="device_failed", message="[lost] card", retry_in=0)
    hand.fail("invalid_model", "it has no weights")
    said = " ".join(run("show", chain.id).out.split())
    assert re.search(r" 1 by-hand \S+ [\d.]+ s, device_failed: \[lost\] card 2 by-hand ", said)
    assert said.endswith("invalid_model: it has no weights")
    assert "failed (invalid_model)" in said


@pytest.mark.parametrize("command", ["show", "wait", "fetch"])
@pytest.mark.parametrize("job_id", ["7" * 26, "nonsense!", "abc"])
def test_an_unknown_id_is_status_4(run: Run, command: str, job_id: str) -> None:
    ended = run(command, job_id)
    assert (ended.status, ended.err.count("\n")) == (4, 1)
    assert repr(job_id) in ended.err


def test_wait_ends_with_the_jobs_and_repeats_their_warnings(
    run: Run, client: Client, hand: Hand
) -> None:
    ids = [client.submit(Text2Img(**RED)).id for _ in range(2)]
    hand.succeed(CUT)
    hand.succeed()
    ended = run("wait", *ids, "--json")
    assert ended.status == 0
    assert [json.loads(line)["id"] for line in ended.out.splitlines()] == ids
    assert ended.err == f"job {ids[0]}: warning: {CUT}\n"


def test_wait_for_several_names_each_that_failed(run: Run, client: Client, hand: Hand) -> None:
    ids = [client.submit(Text2Img(**RED)).id for _ in range(3)]
    hand.fail(message="first")
    hand.succeed()
    hand.fail(message="third")
    ended = run("wait", *ids)
    assert ended.status == 1
    assert "first" in ended.err
    assert "third" in ended.err


def test_wait_gives_up_after_one_timeout_for_all(run: Run, client: Client) -> None:
    ids = [client.submit(Text2Img(**RED)).id for _ in range(4)]
    begun = time.monotonic()
    ended = run("wait", *ids, "--timeout", 0.5, "--json")
    assert time.monotonic() - begun < 2
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == f"latentmill: not ended after 0.5 s: {' '.join(ids)}\n"


def test_ctrl_c_leaves_the_job_alone_and_says_how_to_watch_it_again(run: Run, chain: Job) -> None:
    code = "from producer.cli import main; print(0, flush=True); main()"
    waiting = subprocess.Popen(
        [sys.executable, "-c", code, "wait", chain.id],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert waiting.stdout is not None
    waiting.stdout.readline()
    time.sleep(1.5)
    waiting.send_signal(signal.SIGINT)
    _, said = waiting.communicate(timeout=20)
    assert waiting.returncode == 130
    assert f"latentmill wait {chain.id}" in said
    assert "Traceback" not in said
    assert chain.refresh().state == "queued"


def test_fetch_writes_into_a_folder(run: Run, chain: Job, hand: Hand) -> None:
    hand.succeed()
    ended = run("fetch", chain.id[:22], "-o", "pictures")
    assert (ended.status, ended.out) == (0, f"pictures/{chain.id}.png\n")
    assert Path(ended.out.strip()).read_bytes() == hand.objects.get(f"jobs/{chain.id}/result.png")


def test_fetch_gets_the_kept_pictures_of_all_steps(run: Run, chain: Job, hand: Hand) -> None:
    hand.succeed()
    lines = run("fetch", chain.id, "--all-steps", "--json").out.splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1]
    assert all(Path(json.loads(line)["file"]).is_file() for line in lines)


def test_fetch_never_writes_over_a_file_unasked(run: Run, chain: Job, hand: Hand) -> None:
    hand.succeed()
    Path("mine.png").write_text("mine")
    ended = run("fetch", chain.id, "-o", "mine.png")
    assert (ended.status, Path("mine.png").read_text()) == (2, "mine")
    assert ended.err == "latentmill: output: 'mine.png' is there already; --force replaces it\n"
    assert run("fetch", chain.id, "-o", "mine.png", "--force").status == 0


def test_fetch_refuses_one_file_for_several_pictures(run: Run, client: Client, hand: Hand) -> None:
    ids = [client.submit(Text2Img(**RED)).id for _ in range(2)]
    for _ in ids:
        hand.succeed()
    ended = run("fetch", *ids, "-o", "one.png")
    assert (ended.status, Path("one.png").exists()) == (2, False)


def test_a_job_without_a_picture_does_not_keep_the_others_back(
    run: Run, client: Client, hand: Hand
) -> None:
    failed, queued, done = (client.submit(Text2Img(**RED), priority=p).id for p in (3, 1, 2))
    hand.fail(message="no luck")
    hand.succeed()
    ended = run("fetch", failed, queued, done)
    assert ended.status == 1
    assert ended.out == f"{done}.png\n"
    assert "no luck" in ended.err
    assert f"job {queued} has no picture yet: it is queued" in ended.err
    assert run("fetch", queued).status == 4


def test_a_grid_shows_the_input_and_every_kept_step(
    run: Run, client: Client, hand: Hand, picture: Path
) -> None:
    chain = [
        Img2Img(model="demo", image=picture, prompt="a cat"),
        Img2Img(model="demo", prompt="b"),
    ]
    kept = client.submit(chain, keep_steps=True)
    hand.succeed()
    single = client.submit(Text2Img(model="demo", prompt="a dog"))
    hand.succeed()
    assert run("fetch", kept.id, single.id, "--grid", "-o", "strip.png").status == 0
    with Image.open("strip.png") as strip:
        assert strip.width == 3 * (256 + 12) + 12
    moving = run("fetch", kept.id, "--grid", "-o", "chain.gif", "--json")
    assert json.loads(moving.out)["file"] == "chain.gif"
    with Image.open("chain.gif") as frames:
        assert frames.n_frames == 3  # type: ignore[attr-defined]
    assert run("fetch", kept.id, "--grid").out.strip() == f"{kept.id}-grid.png"
    again = run("fetch", kept.id, "--grid", "-o", "chain.gif")
    assert (again.status, "is there already" in again.err) == (2, True)
    assert "a .png or a .gif" in run("fetch", kept.id, "--grid", "-o", "x.jpg").err


def test_a_grid_of_a_job_that_has_not_ended_is_refused(run: Run, client: Client) -> None:
    job = client.submit(Text2Img(model="demo", prompt="a dog"))
    ended = run("fetch", job.id, "--grid")
    assert (ended.status, "has no picture yet" in ended.err) == (4, True)
