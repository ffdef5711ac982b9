"""Specs that come by Redis alone, sent by a plain Celery application that knows nothing of ours."""

import base64
import io
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from celery import Celery
from PIL import Image
from redis import Redis

from storage.broker import SUBMISSIONS, celery_app, refused
from storage.errors import LedgerUnavailable
from storage.inbox import my_turn
from storage.jobs import Job, State
from storage.ledger import Ledger
from storage.models import load_models
from storage.objects import Objects, input_key
from storage.settings import Settings
from worker.submissions import Clerk

STEP: dict[str, Any] = {"kind": "text2img", "model": "demo", "prompt": "a cat", "seed": 1}
QUEUE = "latentmill-submit"


@pytest.fixture
def redis(redis_url: str) -> Redis:
    return Redis(unix_socket_path=redis_url.removeprefix("redis+socket://"))


@pytest.fixture
def stranger(redis_url: str) -> Celery:
    """An application of somebody else's."""
    return Celery("shop", broker=redis_url, set_as_current=False)


@pytest.fixture
def clerk(ledger: Ledger, objects: Objects, redis_url: str) -> Clerk:
    settings = Settings(max_image_pixels=100_000)
    return Clerk(
        settings=settings, ledger=ledger, objects=objects, models=load_models(settings),
        app=celery_app(redis_url), name="w", wait=0.01,
    )  # fmt: skip


def send(stranger: Celery, *args: Any, **options: Any) -> str:
    task_id: str = stranger.send_task(
        "latentmill.submit", args=list(args), queue=QUEUE, **options
    ).id
    return task_id


def only(ledger: Ledger) -> Job:
    (job,) = ledger.jobs()
    return job


def png(size: tuple[int, int] = (64, 64)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "teal").save(out, "PNG")
    return out.getvalue()


def url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def test_a_spec_becomes_a_job_and_workers_are_invited(
    clerk: Clerk, stranger: Celery, ledger: Ledger, redis: Redis
) -> None:
    task_id = send(stranger, {"steps": [STEP], "labels": {"shop": "7"}})
    clerk.work()
    job = only(ledger)
    assert (job.state, job.spec.key, job.spec.labels) == (State.QUEUED, task_id, {"shop": "7"})
    assert redis.llen(SUBMISSIONS) == 0
    assert redis.llen("latentmill.default") == 1


def test_a_spec_may_be_json_text_with_a_key_and_a_priority_of_its_message(
    clerk: Clerk, stranger: Celery, ledger: Ledger
) -> None:
    send(stranger, '{"steps": [{"kind": "text2img", "model": "demo", "prompt": "é"}], "key": "k"}',
         priority=9)  # fmt: skip
    clerk.work()
    assert only(ledger).spec.key == "k"


def test_a_message_that_comes_again_makes_no_second_job(
    clerk: Clerk, stranger: Celery, ledger: Ledger, redis: Redis
) -> None:
    unseeded = {**STEP, "seed": None}
    send(stranger, {"steps": [unseeded]})
    send(stranger, {"steps": [{**STEP, "strength": 2}]})
    copies = redis.lrange(SUBMISSIONS, 0, -1)
    clerk.work()
    for _ in range(2):
        redis.lpush(SUBMISSIONS, *copies)
        clerk.work()
    assert len(ledger.jobs()) == 2


def test_a_picture_may_come_along(
    clerk: Clerk, stranger: Celery, ledger: Ledger, objects: Objects
) -> None:
    send(stranger, {"steps": [{**STEP, "kind": "img2img", "image": url(png())}]})
    clerk.work()
    job = only(ledger)
    assert job.state is State.QUEUED
    assert job.spec.steps[0].image == input_key(png(), "png")  # type: ignore[union-attr]
    assert objects.get(input_key(png(), "png")) == png()


IMG2IMG = {**STEP, "kind": "img2img"}


@pytest.mark.parametrize(
    ("spec", "code", "sentence"),
    [
        ({"steps": [{**STEP, "strength": 2}]}, "invalid_spec", "steps.0.strength: no such field"),
        ({"steps": [{**STEP, "guidance_scale": -1}]}, "invalid_spec", "greater than or equal to 0"),
        ({"steps": [{**STEP, "a\0b": 1}]}, "invalid_spec", "no such field"),
        ([1, 2], "invalid_spec", "valid dictionary"),
        (None, "invalid_spec", "valid dictionary"),
        ("{", "invalid_spec", "spec: not JSON"),
        ({"steps": [{**STEP, "prompt": "\ud800"}]}, "invalid_spec", "steps.0.prompt"),
        ({"steps": [{**STEP, "model": "nobody"}]}, "unknown_model", "'nobody'"),
        ({"steps": [{**IMG2IMG, "image": url(b"x")}]}, "invalid_image", "none of PNG"),
        ({"steps": [{**IMG2IMG, "image": url(png((400, 400)))}]}, "invalid_image", "160000 pixels"),
        ({"steps": [{**IMG2IMG, "image": "data:,x"}]}, "invalid_image", "of the form"),
        ({"steps": [{**IMG2IMG, "image": "data:x;base64,?"}]}, "invalid_image", "broken"),
    ],
)
def test_a_bad_one_becomes_a_failed_job_that_says_why(
    clerk: Clerk,
    stranger: Celery,
    ledger: Ledger,
    redis: Redis,
    spec: Any,
    code: str,
    sentence: str,
) -> None:
    task_id = send(stranger, spec)
    clerk.work()
    job = only(ledger)
    assert (job.state, job.error_code, job.spec.key) == (State.FAILED, code, task_id)
    assert job.error is not None
    assert sentence in job.error
    assert job.finished_at is not None
    assert redis.llen(SUBMISSIONS) == 0


def test_a_message_with_other_arguments_or_a_time_fails_too(
    clerk: Clerk, stranger: Celery, ledger: Ledger
) -> None:
    send(stranger)
    send(stranger, {"steps": [STEP]}, kwargs={"pool": "x"})
    send(stranger, {"steps": [STEP]}, countdown=60)
    clerk.work()
    errors = {str(job.error) for job in ledger.jobs()}
    assert errors == {
        "message: it must have one argument, a spec",
        "message: no argument but the spec (got pool)",
        "message: eta, countdown and expires are not known here",
    }


def test_a_key_of_another_spec_fails_alone(clerk: Clerk, stranger: Celery, ledger: Ledger) -> None:
    send(stranger, {"steps": [STEP], "key": "k"})
    send(stranger, {"steps": [{**STEP, "prompt": "a dog"}], "key": "k"})
    send(stranger, {"steps": [STEP]})
    clerk.work()
    ended = sorted((str(job.state), job.error_code or "") for job in ledger.jobs())
    assert ended == [("failed", "key_conflict"), ("queued", ""), ("queued", "")]


def test_what_is_no_submission_at_all_is_counted(
    clerk: Clerk, stranger: Celery, ledger: Ledger, redis: Redis
) -> None:
    stranger.send_task("os.system", args=["true"], queue=QUEUE)
    redis.lpush(SUBMISSIONS, b"\x80\x04garbage", b"[]", b"{}", b"[" * 100_000)
    send(stranger, {"steps": [STEP]})
    clerk.work()
    assert len(ledger.jobs()) == 1
    assert redis.llen(SUBMISSIONS) == 0
    assert refused(clerk.app) == {"not_a_submission": 5}


def test_while_the_ledger_is_away_messages_stay_where_they_are(
    clerk: Clerk, stranger: Celery, ledger: Ledger, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise LedgerUnavailable("away")

    send(stranger, {"steps": [STEP]})
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "submit", away)
        with pytest.raises(LedgerUnavailable):
            clerk.work()
    assert redis.llen(SUBMISSIONS) == 1
    clerk.work()
    assert len(ledger.jobs()) == 1


def test_one_worker_at_a_time_reads_and_another_takes_over(redis: Redis) -> None:
    assert my_turn(redis, "a", 0.3)
    assert my_turn(redis, "a", 0.3)
    assert not my_turn(redis, "b", 0.3)
    time.sleep(0.4)
    assert my_turn(redis, "b", 0.3)
    assert not my_turn(redis, "a", 0.3)


CLERK = """
import sys
from storage.broker import celery_app
from storage.ledger import Ledger
from storage.models import load_models
from storage.settings import Settings
from worker.submissions import Clerk
settings = Settings()
clerk = Clerk(settings=settings, ledger=Ledger.open(sys.argv[1]), objects=None,
              models=load_models(settings), app=celery_app(sys.argv[2]), name=sys.argv[3])
print("here", flush=True)
while True:
    clerk.work()
"""


def test_a_reader_killed_again_and_again_loses_nothing_and_enters_nothing_twice(
    ledger: Ledger, ledger_url: str, stranger: Celery, redis_url: str, redis: Redis
) -> None:
    sent = {send(stranger, {"steps": [STEP]}) for _ in range(50)}
    kills = 0
    deadline = time.monotonic() + 90
    while redis.llen(SUBMISSIONS):
        assert time.monotonic() < deadline
        process = subprocess.Popen(
            [sys.executable, "-c", CLERK, ledger_url, redis_url, f"w{kills}"],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()
        # Its turn is kept for a dead reader as long as for a slow one: not what is tested here.
        redis.delete("latentmill-submit-turn")
        before = redis.llen(SUBMISSIONS)
        # In the middle of its work, however fast it is.
        while redis.llen(SUBMISSIONS) == before and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
    assert kills >= 2
    keys = [job.spec.key for job in ledger.jobs(limit=1000)]
    assert len(keys) == 50
    assert set(keys) == sent
