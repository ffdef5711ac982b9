"""The simulator: the device loop's choices on a trace, beside fixed batches."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from worker.bench.calibrate import most
from worker.bench.simulation import Arrival, Simulation, Times

TIMES = Times(load=2.0, step={1: 0.1, 16: 0.4})


def run(*options: str, home: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "worker.bench", "simulate", *options],
        env={"LATENTMILL_HOME": str(home), "PATH": ""}, capture_output=True, text=True,
    )  # fmt: skip


def test_a_step_between_two_measured_numbers_of_rows_lies_between_them() -> None:
    times = Times(load=1.0, step={2: 0.2, 4: 0.3, 8: 0.7})
    assert [round(times.of(rows), 3) for rows in (1, 2, 3, 4, 6, 16)] == [
        0.2, 0.2, 0.25, 0.3, 0.5, 1.5,
    ]  # fmt: skip


def test_one_job_waits_for_its_load_and_takes_its_steps() -> None:
    arrivals = [Arrival(at=1.0, model="a", steps=5)]
    for way in ("in_the_loop", "in_fixed_batches"):
        outcome = getattr(Simulation({"a": TIMES}), way)(arrivals)
        ((model, wait, turnaround),) = outcome.ended
        assert (model, round(wait, 3), round(turnaround, 3)) == ("a", 2.0, 2.5)
        assert outcome.figures()["device_use"] == round(0.5 / 3.5, 4)


def test_ragged_jobs_end_sooner_when_rows_join_and_leave() -> None:
    arrivals = [Arrival(at=0.0, model="a", steps=5 + 45 * (i % 2)) for i in range(64)]
    loop = Simulation({"a": TIMES}).in_the_loop(arrivals)
    fixed = Simulation({"a": TIMES}).in_fixed_batches(arrivals)
    assert len(loop.ended) == len(fixed.ended) == 64
    assert loop.clock < 0.75 * fixed.clock


def test_a_trace_is_replayed_on_the_times_that_were_measured(tmp_path: Path) -> None:
    (tmp_path / "step_times.json").write_text(json.dumps({"m": {"load": 1, "step": {"1": 0.1}}}))
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"at": 0, "model": "m", "steps": 10}\n\n{"at": 1, "model": "m", "steps": 1}')
    done = run(str(trace), "--json", home=tmp_path)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["device loop"]["jobs"] == figures["fixed batches"]["jobs"] == 2
    assert figures["device loop"]["makespan_seconds"] == pytest.approx(2.1)


@pytest.mark.parametrize(
    ("trace", "message"),
    [
        ("nonsense", "trace.jsonl:1: "),
        ('{"at": 0, "model": "demo"}', "steps"),
        ('{"at": 0, "model": "demo", "steps": 0}', "steps must be at least 1"),
        ('{"at": 0, "model": "demo", "steps": 1, "size": 3}', "'size' is not known"),
        ('{"at": 0, "model": "other", "steps": 1}', "no times of model 'other'"),
    ],
)
def test_a_bad_trace_is_told_in_one_sentence(tmp_path: Path, trace: str, message: str) -> None:
    (tmp_path / "trace.jsonl").write_text(trace)
    done = run(str(tmp_path / "trace.jsonl"), home=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_calibration_takes_the_most_rows_that_pay() -> None:
    assert most({1: 0.10, 2: 0.15, 4: 0.25, 8: 0.50}) == 4
    assert most({1: 0.10, 2: 0.20}) == 1
