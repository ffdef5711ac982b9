"""The examples of docs/integrate.md, run as they stand there."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from PIL import Image

from producer import Client
from storage.broker import celery_app
from storage.jobs import State
from storage.keys import Keys, NewKey
from storage.models import load_models
from storage.secret import new_secret
from storage.settings import PREFIX, Settings, require
from storage.webhooks import sign
from tests.producer.api.conftest import running
from tests.producer.conftest import Hand
from worker.submissions import Clerk

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "integrate.md").read_text()


def example(name: str) -> str:
    [code] = re.findall(rf"<!-- example: {name} -->\n```\w+\n(.*?)```", DOCUMENT, re.DOTALL)
    return str(code)


@dataclass(frozen=True)
class Place:
    """A folder with a picture, and what an example finds in its environment."""

    client: Client
    folder: Path
    key: NewKey
    env: dict[str, str]

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def python(self, name: str) -> str:
        return self.run(sys.executable, "-c", example(name))

    def check_result(self) -> None:
        with Image.open(self.folder / "result.png") as picture:
            assert picture.size == (16, 16)
        [job] = self.client.ledger.jobs()
        assert job.state is State.SUCCEEDED


@pytest.fixture
def place(
    _sqlite_template: Path, tmp_path: Path, redis_url: str, s3: dict[str, str]
) -> Iterator[Place]:
    """A served API with a key, and somebody who does the work."""
    file = tmp_path / "ledger.sqlite3"
    file.write_bytes(_sqlite_template.read_bytes())
    services = {"database_url": f"sqlite:///{file}", "redis_url": redis_url, **s3}
    settings = Settings.model_validate(
        {
            **services,
            "home": tmp_path / "home",
            "allow_private_urls": ("127.0.0.1",),
            "poll_seconds": 0.1,
        }
    )
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(ROOT / "producer" / "samples" / "red-apple.png", folder / "apple.png")
    client = Client(settings)
    key = Keys(client.ledger.database).add("ada")
    with running(client) as url, working(client):
        env = {
            **os.environ,
            **{PREFIX + name.upper(): require(settings, name) for name in services},
            "PYTHONPATH": str(ROOT),
            "MILL": url,
            "KEY": key.token,
            "REDIS_URL": redis_url,
            "WEBHOOK_SECRET": key.webhook_secret,
        }
        yield Place(client, folder, key, env)
    client.ledger.close()


@contextmanager
def working(client: Client) -> Iterator[None]:
    """Every job that comes succeeds."""
    over = threading.Event()
    hand = Hand(client.ledger, client.objects)

    def work() -> None:
        while not over.wait(0.05):
            if client.ledger.due("default"):
                hand.succeed()

    thread = threading.Thread(target=work)
    thread.start()
    yield
    over.set()
    thread.join()


def test_curl(place: Place) -> None:
    said = place.run("bash", "-euc", example("curl"))
    assert "event: succeeded" in said
    place.check_result()


def test_curl_again_is_the_same_job(place: Place) -> None:
    for _ in range(2):
        place.run("bash", "-euc", example("curl"))
    assert len(place.client.ledger.jobs()) == 1


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node here")
def test_javascript(place: Place) -> None:
    said = place.run("node", "--input-type=module", "-e", example("javascript"))
    assert "kind: 'succeeded'" in said
    place.check_result()


def test_python(place: Place) -> None:
    place.python("python")
    place.check_result()


def test_celery(place: Place) -> None:
    sent = place.python("celery").strip()
    settings = place.client.settings
    Clerk(
        settings=settings,
        ledger=place.client.ledger,
        objects=place.client.objects,
        models=load_models(settings),
        app=celery_app(require(settings, "redis_url")),
        name="clerk",
        wait=0.1,
    ).work()
    [job] = place.client.ledger.jobs()
    assert job.spec is not None
    assert job.spec.key == sent
    assert job.error is None


@contextmanager
def receiving(place: Place) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, "-c", example("receiver")],
        env={**place.env, "PORT": port},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                httpx2.post(url, content=b"")
                break
            except httpx2.HTTPError:
                time.sleep(0.05)
        yield url, process
    finally:
        process.terminate()
        process.communicate()


def test_the_receiver_believes_what_is_signed_and_nothing_else(place: Place) -> None:
    body = json.dumps({"data": {"id": "x", "state": "succeeded"}}).encode()
    secret, now = place.key.webhook_secret, int(time.time())
    with receiving(place) as (url, process):
        for headers, status in (
            ({}, 401),
            (sign("msg_1", now, body, [new_secret()]), 401),
            (sign("msg_1", now - 3600, body, [secret]), 401),
            (sign("msg_1", now, b"other", [secret]), 401),
            (sign("msg_1", now, body, [new_secret(), secret]), 204),
        ):
            assert httpx2.post(url, content=body, headers=headers).status_code == status
        spec = {
            "steps": [{"kind": "text2img", "model": "demo", "prompt": "x"}],
            "webhook_url": f"{url}/ended",
        }
        key = {"Authorization": f"Bearer {place.key.token}"}
        answer = httpx2.post(f"{place.env['MILL']}/v1/jobs", json=spec, headers=key)
        assert process.stdout is not None
        assert process.stdout.readline() == "x succeeded\n"
        assert process.stdout.readline() == f"{answer.json()['id']} succeeded\n"
