"""Jobs as their producer sees them, moved on by hand."""

import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from producer import Client, Img2Img, Job, Text2Img
from storage.errors import JobFailed, NotFound
from storage.jobs import State
from tests.producer.conftest import Hand

RED: dict[str, Any] = {"model": "demo", "prompt": "a red apple"}


@pytest.fixture
def job(client: Client) -> Job:
    return client.submit([Text2Img(**RED), Img2Img(**RED)], keep_steps=True)


def test_waiting_ends_with_the_job_and_shows_its_progress_on_the_way(job: Job, hand: Hand) -> None:
    seen: list[tuple[State, int, int]] = []

    def work() -> None:
        time.sleep(0.4)
        claim = hand.claim()
        hand.ledger.progress([(claim, 0, 3, 50)])
        time.sleep(0.6)
        hand.finish_step(claim, 0)
        hand.finish_step(claim, 1)
        hand.ledger.succeed(claim)

    worker = threading.Thread(target=work)
    worker.start()

    def look(now: Job) -> None:
        seen.append((now.state, now.record.progress_done, now.record.progress_total))

    assert job.wait(timeout=20, on_progress=look) is job
    worker.join()
    assert seen[0] == (State.QUEUED, 0, 0)
    assert (State.RUNNING, 3, 50) in seen
    assert seen[-1][0] is State.SUCCEEDED
    assert len(seen) < 12  # a modest pace


def test_waiting_for_a_failed_job_raises_its_reason(job: Job, hand: Hand) -> None:
    hand.fail("invalid_model", "it has no weights")
    with pytest.raises(JobFailed, match=f"{job.id} failed .invalid_model.: it has no weights") as e:
        job.wait(timeout=5)
    assert e.value.code == "invalid_model"


def test_waiting_no_longer_than_asked(job: Job) -> None:
    begun = time.monotonic()
    with pytest.raises(TimeoutError, match=f"job {job.id} is still queued after 0.3 s"):
        job.wait(timeout=0.3)
    assert time.monotonic() - begun < 2


def test_the_pictures_of_every_kept_step_can_be_had(job: Job, hand: Hand) -> None:
    hand.succeed()
    job.refresh()
    assert job.image().getpixel((0, 0)) == (0, 255, 0)
    assert [image.getpixel((0, 0)) for image in job.images()] == [(255, 0, 0), (0, 255, 0)]


def test_a_job_without_a_picture_yet_says_so(job: Job, tmp_path: Path) -> None:
    for ask in (job.image, job.link, lambda: job.save(tmp_path / "x.png")):
        with pytest.raises(NotFound, match=f"job {job.id} has no such picture: it is queued"):
            ask()
    assert list(tmp_path.glob("*x.png*")) == []


def test_a_saved_picture_is_the_stored_file_with_common_permissions(
    job: Job, hand: Hand, tmp_path: Path
) -> None:
    hand.succeed()
    file = job.refresh().save(tmp_path / "new" / "folder" / "apple.png")
    assert file.read_bytes() == hand.objects.get(str(job.record.artifact))
    usual = tmp_path / "usual"
    usual.touch()
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)
    assert [entry.name for entry in file.parent.iterdir()] == ["apple.png"]


def test_a_place_that_cannot_be_written_keeps_nothing_half_done(
    job: Job, hand: Hand, tmp_path: Path
) -> None:
    hand.succeed()
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(OSError, match="folder"):
        job.refresh().save(folder)
    assert [entry.name for entry in tmp_path.iterdir() if "folder" in entry.name] == ["folder"]


def test_a_job_is_found_by_the_beginning_of_its_id(client: Client, job: Job) -> None:
    assert client.job(job.id[:20]).id == job.id
    with pytest.raises(NotFound):
        client.job("7" * 26)


def test_jobs_are_listed_newest_first_by_state_and_label(client: Client, hand: Hand) -> None:
    ids = [client.submit(Text2Img(**RED), labels={"n": str(n)}).id for n in range(3)]
    assert [job.id for job in client.jobs()] == ids[::-1]
    assert [job.id for job in client.jobs(label=("n", "1"))] == [ids[1]]
    done = hand.succeed()
    assert [job.id for job in client.jobs(state=State.SUCCEEDED)] == [done.id]
    assert [job.id for job in client.jobs(limit=1, before=ids[2])] == [ids[1]]


def test_warnings_of_a_worker_reach_the_producer(job: Job, hand: Hand) -> None:
    hand.succeed("prompt is longer than the model's 77 tokens; not used: 'tail'")
    assert any("77 tokens" in text for text in job.refresh().warnings)
