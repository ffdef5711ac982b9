"""The page in a real browser, over a real API process, stack and worker."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from storage.keys import Keys, Scope
from tests.acceptance.conftest import PATIENCE, Mill, gradient, mill, worker
from tests.producer.web.browser import running_browser

__all__ = ["gradient", "mill", "worker"]

SERVE = (sys.executable, "-c", "from producer.cli import main; main()", "serve")


@dataclass(frozen=True)
class Site:
    url: str
    #: Of an admin.
    key: str


@contextmanager
def running_api(mill: Mill) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    log = mill.home / "api.log"
    with log.open("ab") as file:
        process = subprocess.Popen(
            [*SERVE, "--port", str(port)],
            env={**os.environ, "LATENTMILL_HOME": str(mill.home)},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not _answers(f"{url}/readyz"):
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


@pytest.fixture(scope="session")
def site(mill: Mill) -> Iterator[Site]:
    made = Keys(mill.ledger.database).add("tester", Scope.ADMIN)
    with running_api(mill) as url:
        yield Site(url, made.token)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with running_browser() as found:
        yield found


@pytest.fixture
def faults() -> list[str]:
    """What pages of this test said on their console that they should not have."""
    return []


@pytest.fixture
def open_page(browser: Browser, site: Site, faults: list[str]) -> Iterator[Callable[..., Page]]:
    """Opens a view with a key: `open_page("#/jobs", color_scheme="dark")`. At the end of the test
    no page may have complained."""
    contexts = []

    def open_view(view: str = "", **options: object) -> Page:
        context = browser.new_context(**options)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"{site.url}/#key={site.key}&{view.removeprefix('#')}")
        page.wait_for_selector("main h1")
        return page

    yield open_view
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture(scope="session")
def picture_file(tmp_path_factory: pytest.TempPathFactory, gradient: object) -> Path:
    file = tmp_path_factory.mktemp("pictures") / "gradient.png"
    gradient.save(file)  # type: ignore[attr-defined]
    return file
