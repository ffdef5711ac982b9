"""The embedded stack's page: a server of its own, opened by a key of its own."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2

from producer.commands.page import KEY_FILE, running_page
from storage.embedded.lock import locked
from storage.settings import STACK_FILE, Settings, require


@contextmanager
def as_stack(settings: Settings) -> Iterator[None]:
    """Let the services be found as those of a stack that runs in the home."""
    names = ("database_url", "redis_url", "s3_endpoint_url", "s3_bucket", "s3_access_key",
             "s3_secret_key")  # fmt: skip
    settings.home.mkdir(exist_ok=True)
    found = {name: require(settings, name) for name in names}
    (settings.home / STACK_FILE).write_text(json.dumps(found))
    with locked(settings.home):
        yield


def test_the_page_is_served_with_a_key_that_stays_the_same(settings: Settings) -> None:
    seen = []
    for _ in range(2):
        with as_stack(settings), running_page(settings, 0) as url:
            assert url is not None
            base, _, key = url.partition("/#key=")
            assert httpx2.get(f"{base}/v1/jobs").status_code == 401
            headers = {"Authorization": f"Bearer {key}"}
            assert httpx2.get(f"{base}/v1/jobs", headers=headers).status_code == 200
            seen.append(key)
    assert seen[0] == seen[1]
    assert (settings.home / KEY_FILE).stat().st_mode & 0o777 == 0o600
    log = (settings.home / "logs" / "serve.log").read_text()
    assert '"path": "/v1/jobs"' in log
    assert seen[0] not in log


def test_a_port_that_is_taken_is_left_alone(settings: Settings) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with as_stack(settings), running_page(settings, port) as url:
            assert url is not None
            assert not url.startswith(f"http://127.0.0.1:{port}/")
