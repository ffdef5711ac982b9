"""The supervisor, with real processes; the whole of it with a real worker in tests/acceptance."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storage.errors import NotConfigured
from worker.supervisor import Pauses, ascend_cards, parse_devices

SUPERVISOR = """
import json, logging, sys
from worker.supervisor import Pauses, supervise
assert "mindspore" not in sys.modules
logging.basicConfig(level=logging.INFO, format="%(message)s")
commands = {name: [sys.executable, "-c", code] for name, code in json.loads(sys.argv[1]).items()}
sys.exit(supervise(commands, Pauses(first=0.2, longest=0.5)))
"""
FOREVER = "import time\nprint('here', flush=True)\nwhile True: time.sleep(0.05)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FOREVER
POLITE = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n" + FOREVER


class Supervised:
    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self.process, self._log = process, log

    @property
    def said(self) -> str:
        return self._log.read_text()

    def wait(self, until: Callable[[str], bool]) -> str:
        deadline = time.monotonic() + 20
        while not until(self.said):
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)
        return self.said

    def end(self, *signals: signal.Signals) -> int:
        for number in signals:
            self.process.send_signal(number)
            time.sleep(0.4)
        return self.process.wait(20)

    def pids(self, name: str) -> list[int]:
        start = f"{name}: process "
        lines = [line for line in self.said.splitlines() if line.startswith(start)]
        return [int(line.removeprefix(start)) for line in lines]


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Callable[..., "Supervised"]]:
    started = []

    def start(**codes: str) -> Supervised:
        log = tmp_path / "log"
        with log.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", SUPERVISOR, json.dumps(codes)], stderr=file, text=True
            )
        started.append(process)
        return Supervised(process, log)

    with closing_all(started):
        yield start


@contextmanager
def closing_all(started: list["subprocess.Popen[str]"]) -> Iterator[None]:
    try:
        yield
    finally:
        for process in started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.send_signal(signal.SIGINT)
            process.wait(20)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_all_are_stopped_in_order_and_what_they_said_names_the_device(
    supervised: Callable[..., Supervised],
) -> None:
    run = supervised(a=POLITE, b=POLITE)
    run.wait(lambda said: "[a] here" in said and "[b] here" in said)
    assert run.end(signal.SIGTERM) == 0
    assert not any(is_alive(pid) for name in "ab" for pid in run.pids(name))


def test_one_that_dies_is_started_again_with_growing_pauses_and_leaves_the_others_alone(
    supervised: Callable[..., Supervised],
) -> None:
    run = supervised(a=POLITE, b="import os; os.kill(os.getpid(), 9)")
    said = run.wait(lambda said: said.count("b: died") >= 4)
    pauses = [line.rpartition("again in ")[2] for line in said.splitlines() if "b: died" in line]
    assert pauses[:4] == ["0.2 s", "0.4 s", "0.5 s", "0.5 s"]
    assert "SIGKILL" in said
    assert len(run.pids("a")) == 1
    assert run.end(signal.SIGINT) == 1


def test_a_long_run_makes_the_pauses_short_again() -> None:
    pauses = Pauses(first=1, longest=60)
    assert [pauses.after(deaths) for deaths in (1, 2, 3, 7, 10**6)] == [1, 2, 4, 60, 60]


def test_one_that_leaves_between_jobs_is_started_again_without_a_pause(
    supervised: Callable[..., Supervised],
) -> None:
    run = supervised(a="import time; time.sleep(0.1)")
    begun = time.monotonic()
    run.wait(lambda _: len(run.pids("a")) >= 4)
    assert time.monotonic() - begun < 5
    assert "died" not in run.said


def test_a_second_signal_ends_it_at_once_and_the_status_says_so(
    supervised: Callable[..., Supervised],
) -> None:
    run = supervised(a=DEAF)
    run.wait(lambda said: "[a] here" in said)
    assert run.end(signal.SIGTERM, signal.SIGTERM) == 1
    assert not any(is_alive(pid) for pid in run.pids("a"))


def test_what_no_restart_mends_is_not_tried_again(supervised: Callable[..., Supervised]) -> None:
    run = supervised(a="raise SystemExit(3)")
    assert run.process.wait(20) == 3
    assert len(run.pids("a")) == 1


def test_a_worker_stops_in_order_when_its_supervisor_is_killed(
    supervised: Callable[..., Supervised],
) -> None:
    code = (
        "import os, signal; from storage.embedded.process import dying_with;"
        "dying_with(os.getppid(), signal.SIGTERM)()\n" + POLITE
    )
    run = supervised(a=code)
    run.wait(lambda said: "[a] here" in said)
    run.process.kill()
    run.process.wait()
    (pid,) = run.pids("a")
    deadline = time.monotonic() + 10
    while is_alive(pid) and not is_a_zombie(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_a_zombie(pid: int) -> bool:
    """It has ended; whoever inherited it has not looked yet."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")


@pytest.mark.parametrize(
    ("text", "found", "devices"),
    [
        ("auto", 0, ["cpu"]),
        ("auto", 3, ["ascend:0", "ascend:1", "ascend:2"]),
        ("cpu", 8, ["cpu"]),
        ("ascend:0-2", 0, ["ascend:0", "ascend:1", "ascend:2"]),
        ("ascend:0,2", 8, ["ascend:0", "ascend:2"]),
        ("ascend:7,1-2", 8, ["ascend:7", "ascend:1", "ascend:2"]),
    ],
)
def test_devices_by_name(text: str, found: int, devices: list[str]) -> None:
    assert [str(device) for device in parse_devices(text, found)] == devices


@pytest.mark.parametrize("text", ["", "gpu", "ascend", "ascend:", "ascend:3-1", "ascend:1,1", "0"])
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(NotConfigured, match="ascend:0-7"):
        parse_devices(text, 8)


def test_cards_are_counted_where_the_kernel_shows_them(tmp_path: Path) -> None:
    for name in ("davinci0", "davinci5", "davinci_manager", "davinci_manager_docker", "null"):
        (tmp_path / name).touch()
    assert ascend_cards(tmp_path) == 2


def test_an_option_that_is_not_allowed_is_one_sentence() -> None:
    for options, sentence in (
        (["--max-memory", "much"], "'much' is no size: it must be such as 8G or 500M"),
        (["--max-jobs", "0"], "at least 1 (got 0)"),
        (["--devices", "cpu", "--device", "cpu"], "not allowed with"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "worker", *options], capture_output=True, text=True
        )
        assert done.returncode == 2
        assert sentence in done.stderr.splitlines()[-1]


def test_without_settings_it_says_so_once_and_leaves() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "worker", "--devices", "cpu"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 3
    assert done.stderr.count("LATENTMILL_DATABASE_URL is not set") == 1
