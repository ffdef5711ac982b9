import base64
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import Celery
from redis import Redis

from storage.broker import WORK, celery_app, check, invite, queue_name, waiting
from storage.embedded.valkey import running_valkey
from storage.errors import BrokerUnavailable, NotConfigured
from tests.processes import pid_of_valkey

CALLS: dict[str, Callable[[Celery], object]] = {
    "invite": lambda app: invite(app, "default"),
    "waiting": lambda app: waiting(app, "default"),
    "check": check,
}


def messages(redis_url: str, pool: str) -> list[dict[str, object]]:
    with Redis(unix_socket_path=redis_url.removeprefix("redis+socket://")) as client:
        return [json.loads(raw) for raw in client.lrange(queue_name(pool), 0, -1)]


def test_an_invitation_is_json_that_names_the_task_and_nothing_of_a_job(redis_url: str) -> None:
    invite(celery_app(redis_url), "gpu")

    [message] = messages(redis_url, "gpu")

    headers = message["headers"]
    assert isinstance(headers, dict)
    assert message["content-type"] == "application/json"
    assert headers["task"] == WORK == "latentmill.work"
    assert (headers["argsrepr"], headers["kwargsrepr"]) == ("()", "{}")
    args, kwargs, _ = json.loads(base64.b64decode(str(message["body"])))
    assert (args, kwargs) == ([], {})


def test_invitations_of_a_pool_are_counted_until_they_are_taken(redis_url: str) -> None:
    app = celery_app(redis_url)
    assert waiting(app, "a") == 0
    invite(app, "a", 3)
    invite(app, "b")
    assert (waiting(app, "a"), waiting(app, "b")) == (3, 1)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_broker_that_is_away_is_named_without_its_password(
    call: Callable[[Celery], object],
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    begun = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=r"redis://mill:.*@127") as caught:
        call(celery_app(f"redis://mill:geheim@127.0.0.1:{port}/0"))
    assert time.monotonic() - begun < 3.5
    assert "geheim" not in str(caught.value)


@pytest.fixture
def frozen_broker(tmp_path: Path) -> Iterator[str]:
    with running_valkey(tmp_path / "valkey", tmp_path / "log") as found:
        pid = pid_of_valkey(tmp_path)
        app = celery_app(found["redis_url"])
        invite(app, "default")
        os.kill(pid, signal.SIGSTOP)
        yield found["redis_url"]
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_frozen_broker_costs_three_seconds(
    frozen_broker: str, call: Callable[[Celery], object]
) -> None:
    begun = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        call(celery_app(frozen_broker))
    assert time.monotonic() - begun < 3.5


def test_a_connection_that_was_good_before_the_broker_froze_costs_no_more(tmp_path: Path) -> None:
    with running_valkey(tmp_path / "valkey", tmp_path / "log") as found:
        app = celery_app(found["redis_url"])
        invite(app, "default")
        pid = pid_of_valkey(tmp_path)
        os.kill(pid, signal.SIGSTOP)
        begun = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            invite(app, "default")
        taken = time.monotonic() - begun
        os.kill(pid, signal.SIGCONT)
        assert taken < 3.5
        invite(app, "default")


@pytest.mark.parametrize("url", ["", "nonsense", "amqp://mill:geheim@host", "http://x"])
def test_only_redis_serves_as_broker(url: str) -> None:
    with pytest.raises(NotConfigured, match="redis_url: must begin with redis://") as caught:
        celery_app(url)
    assert "geheim" not in str(caught.value)


def test_the_app_takes_nothing_but_json_and_keeps_no_results(redis_url: str) -> None:
    conf = celery_app(redis_url).conf
    assert conf.accept_content == ["json"]
    assert conf.task_serializer == "json"
    assert conf.task_ignore_result
    assert conf.result_backend is None
    assert not conf.task_acks_late
