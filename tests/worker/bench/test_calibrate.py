"""Calibration measures a real model, and the worker's room and the simulator then know it."""

import json
import subprocess
import sys
from pathlib import Path

from storage.models import Model
from tests.reference.tiny import write_stable_diffusion
from worker.room import UNMEASURED, Room


def test_what_was_measured_is_the_workers_room_and_the_simulators_times(tmp_path: Path) -> None:
    tiny = write_stable_diffusion(tmp_path / "tiny")
    (tmp_path / "models.toml").write_text(f'[tiny]\nsource = "{tiny}"\n')
    command = [
        sys.executable,
        "-m",
        "worker.bench",
        "calibrate",
        "tiny",
        "--json",
        "--size",
        "16x16",
        "--most-rows",
        "2",
    ]
    env = {"LATENTMILL_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["latent"] == [4, 2, 2]
    model = Model(alias="tiny", source=str(tiny))
    rows = Room(tmp_path, "cpu").rows(model, (4, 2, 2))
    assert rows == figures["rows"]
    assert Room(tmp_path, "cpu").rows(model, (4, 8, 8)) == UNMEASURED
    times = json.loads((tmp_path / "step_times.json").read_text())
    assert times["tiny"]["step"] == figures["step_seconds"]
    assert list(times["tiny"]["step"]) == ["1", "2"]
