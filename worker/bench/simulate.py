"""`latentmill bench simulate`: what the device loop makes of a trace, beside fixed batches."""

import argparse
import json
import math
import random
import sys
from pathlib import Path
from typing import Any

from storage.errors import InvalidSpec
from storage.settings import Settings
from worker.bench.calibrate import TIMES_FILE
from worker.bench.simulation import Arrival, Simulation, Times

#: Times of the bundled checkpoint at 64x64 with guidance on two CPU cores.
EXAMPLE = {
    "demo": {"load": 0.3, "step": {"1": 0.048, "2": 0.076, "4": 0.108, "8": 0.211, "16": 0.344}}
}
FIELDS = {"at": float, "model": str, "steps": int, "priority": int}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "trace", nargs="?", type=Path,
        help="JSON lines with at (seconds), model, steps and priority; without it, random jobs",
    )  # fmt: skip
    parser.add_argument(
        "--times", type=Path, help="what `bench calibrate` measured; by default that of the home"
    )
    parser.add_argument("--rows", type=int, default=16, help="the most rows of a model")
    parser.add_argument("--models-loaded", type=int, default=1, help="models that fit at once")
    parser.add_argument("--jobs", type=int, default=500, help="random jobs")
    parser.add_argument("--rate", type=float, default=3.0, help="random jobs a second")
    parser.add_argument("--seed", type=int, default=1)


def simulate(options: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Both ways' figures; raises InvalidSpec for a trace or times that cannot be used."""
    times = read_times(options.times or settings.home / TIMES_FILE, options.times is not None)
    if options.trace is None:
        arrivals = random_arrivals(options, sorted(times))
    else:
        arrivals = read_trace(options.trace)
    for unknown in {arrival.model for arrival in arrivals} - times.keys():
        raise InvalidSpec(
            f"trace: no times of model {unknown!r} are known (known: {', '.join(sorted(times))});"
            " measure them with `latentmill bench calibrate`"
        )
    made = {"room": options.rows, "capacity": options.models_loaded}
    return {
        "device loop": Simulation(times, **made).in_the_loop(arrivals).figures(),
        "fixed batches": Simulation(times, **made).in_fixed_batches(arrivals).figures(),
    }


def random_arrivals(options: argparse.Namespace, models: list[str]) -> list[Arrival]:
    """Jobs of random strengths, so of ragged step counts."""
    rng, at, arrivals = random.Random(options.seed), 0.0, []
    for _ in range(options.jobs):
        at += rng.expovariate(options.rate)
        steps = max(1, round(50 * rng.uniform(0.2, 1.0)))
        arrivals.append(Arrival(at=at, model=rng.choice(models), steps=steps))
    return arrivals


def read_times(path: Path, required: bool) -> dict[str, Times]:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        if required:
            raise InvalidSpec(f"--times: {path} is not there") from None
        print(
            "No times measured here yet (latentmill bench calibrate MODEL): an example's are used.",
            file=sys.stderr,
        )
        found = EXAMPLE
    except (OSError, ValueError) as error:
        raise InvalidSpec(f"--times: {path} cannot be read: {error}") from None
    try:
        return {
            model: Times(
                load=positive(entry["load"]),
                step={int(rows): positive(seconds) for rows, seconds in entry["step"].items()},
            )
            for model, entry in found.items()
        }
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise InvalidSpec(f"--times: {path} is none that calibrate wrote: {error}") from None


def positive(value: Any) -> float:
    if not math.isfinite(number := float(value)) or number <= 0:
        raise ValueError(f"{value!r} is no time")
    return number


def read_trace(path: Path) -> list[Arrival]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSpec(f"trace: {path} cannot be read: {error}") from None
    return [arrival(line, f"trace: {path}:{i}") for i, line in enumerate(lines, 1) if line.strip()]


def arrival(line: str, place: str) -> Arrival:
    try:
        values = json.loads(line)
        given = {name: kind(values[name]) for name, kind in FIELDS.items() if name in values}
        found = Arrival(**given)
    except (ValueError, TypeError) as error:
        raise InvalidSpec(f"{place}: {error}; it needs at, model and steps") from None
    if unknown := values.keys() - FIELDS.keys():
        raise InvalidSpec(f"{place}: {min(unknown)!r} is not known (known: {', '.join(FIELDS)})")
    if found.steps < 1 or not 0 <= found.at < math.inf:
        raise InvalidSpec(f"{place}: steps must be at least 1, and at at least 0")
    return found
