"""The consumer takes invitations whatever happens to the broker."""

import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from storage.broker import WORK, celery_app, invite, queue_name, refused, waiting
from storage.embedded.valkey import running_valkey
from tests.processes import end_valkey

CONSUMER = """
import logging, sys, warnings
from worker.consumer import consume
warnings.simplefilter("ignore")
logging.basicConfig(level=logging.ERROR)
def work():
    print("taken", flush=True)
consume(sys.argv[1], work, name="w", slots=2, pool="default")
"""


@contextmanager
def consumer(redis_url: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", CONSUMER, redis_url], stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


def answers(process: "subprocess.Popen[str]", redis_url: str) -> bool:
    """Whether an invitation is taken, repeated as housekeeping repeats it: one can get lost."""
    assert process.stdout is not None
    for _ in range(30):
        invite(celery_app(redis_url), "default")
        ready, _, _ = select.select([process.stdout], [], [], 2)
        if ready:
            return process.stdout.readline() == "taken\n"
    return False


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGKILL])
def test_invitations_are_answered_however_often_the_broker_restarts(
    tmp_path: Path, kill: signal.Signals
) -> None:
    folder, log = tmp_path / "valkey", tmp_path / "log"
    with ExitStack() as brokers:
        url = brokers.enter_context(running_valkey(folder, log))["redis_url"]
        with consumer(url) as running:
            for _ in range(4):
                assert answers(running, url)
                # Now is the worst moment: the message is being acknowledged.
                end_valkey(folder, kill)
                brokers.enter_context(running_valkey(folder, log))


def test_a_consumer_that_is_told_to_stop_ends_in_order(redis_url: str) -> None:
    with consumer(redis_url) as running:
        assert answers(running, redis_url)


def test_whatever_is_no_invitation_is_refused_counted_and_taken_once(redis_url: str) -> None:
    app = celery_app(redis_url)
    queue = queue_name("default")
    with consumer(redis_url) as running:
        assert answers(running, redis_url)
        app.send_task("os.system", args=["true"], queue=queue)
        app.send_task("celery.backend_cleanup", queue=queue)
        app.send_task(WORK, args=["too", "many"], queue=queue)
        with app.connection_for_write() as connection:
            producer = connection.Producer()
            producer.publish({"neither": "task"}, routing_key=queue, serializer="json")
            producer.publish(
                b"cos\nsystem\n",
                routing_key=queue,
                content_type="application/x-python-serialize",
                content_encoding="binary",
                serializer=None,
            )
            connection.default_channel.client.lpush(queue, b"not even an envelope")
        assert answers(running, redis_url)
        deadline = time.monotonic() + 20
        while sum(refused(app).values()) < 4 or waiting(app, "default"):
            assert time.monotonic() < deadline, refused(app)
            time.sleep(0.1)
    assert refused(app) == {"not_an_invitation": 4}
