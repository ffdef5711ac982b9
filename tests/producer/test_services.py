"""What `up` and `demo` start: a stack of its own, whatever else the environment names."""

import subprocess
import sys
from pathlib import Path

import pytest

from producer import Client
from producer.commands.services import running_mill
from storage.settings import PREFIX
from tests.producer.conftest import Run


def test_the_worker_serves_the_stack_of_its_home_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{PREFIX}DATABASE_URL", "sqlite:////nowhere/at/all")
    monkeypatch.setenv(f"{PREFIX}REDIS_URL", "redis://127.0.0.1:9")
    (tmp_path / "worker.py").write_text("raise SystemExit('the wrong worker')")
    monkeypatch.chdir(tmp_path)
    with running_mill(tmp_path / "home") as (settings, process):
        (worker,) = Client(settings).ledger.workers(30)
        assert worker.name.endswith(str(process.pid))
    assert process.poll() == 0  # it stopped in order
    assert not (tmp_path / "home" / "stack.json").exists()


def test_the_workers_own_help_is_what_the_command_shows() -> None:
    code = "from producer.cli import main; main()"
    said = subprocess.run(
        [sys.executable, "-c", code, "worker", "--help"], capture_output=True, text=True, check=True
    )
    assert "--slots" in said.stdout


def test_migrate_makes_the_tables_and_the_bucket(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{PREFIX}DATABASE_URL", f"sqlite:///{tmp_path / 'new.sqlite3'}")
    assert "went from nothing to" in run("migrate").out
    assert "is up to date" in run("migrate").out
