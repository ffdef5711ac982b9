"""A disk that is full, for real: a small file system of its own, which only root may mount."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.errors import LedgerUnavailable
from storage.jobs import State
from storage.ledger import Ledger
from tests.faults.mill import spec


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "none", folder], capture_output=True
    )
    if done.returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> Path:
    """Take all the room there is; give it back by removing the file."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as out:
        try:
            while True:
                out.write(os.urandom(2**16))
        except OSError:
            pass
        try:
            while True:
                out.write(b"x")
        except OSError:
            return filler


def test_a_ledger_on_a_full_disk_says_so_and_goes_on_when_there_is_room(small_disk: Path) -> None:
    ledger = Ledger.open(f"sqlite:///{small_disk / 'ledger.sqlite3'}")
    ledger.upgrade()
    ledger.submit([spec()])
    filler = fill(small_disk)
    with pytest.raises(LedgerUnavailable, match="full"):
        ledger.submit([spec("x" * 10_000) for _ in range(500)])
    assert ledger.counts()[State.QUEUED] == 1
    filler.unlink()
    ledger.submit([spec("x" * 10_000) for _ in range(500)])
    assert ledger.counts()[State.QUEUED] == 501
    ledger.close()
