"""The engine beside diffusers on torch: each stage measured in turn, on the same weights.

    python -m benchmarks.compare --reference PYTHON [--checkpoint FOLDER] [--size 64] [--repeats 5]

PYTHON is that of an environment with tests/reference/requirements.txt. Both sides stay loaded and
take turns, so that what else the machine does falls on both; the shortest of each is compared.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
BUNDLED = ROOT / "worker" / "checkpoints" / "demo"
STAGES = (
    ("load", 1),
    ("text encoder", 1),
    ("UNet step", 1),
    ("UNet step", 2),
    ("UNet step", 8),
    ("VAE encode", 1),
    ("VAE decode", 1),
    ("VAE decode", 8),
    ("img2img job", 1),
    ("img2img job", 8),
)


class Side:
    """A process that measures one side's stages."""

    def __init__(self, python: str, name: str, checkpoint: Path, size: int) -> None:
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.sides", name, str(checkpoint), str(size)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if self._answer() != "ready":
            raise SystemExit(f"the {name} side did not start: is its environment complete?")

    def ask(self, stage: str, rows: int) -> float:
        """Seconds, or what else the stage is said to answer."""
        assert self._process.stdin is not None
        print(stage, rows, file=self._process.stdin, flush=True)
        return float(self._answer())

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def measured_peak() -> float:
    """The most floating-point operations a second that were seen here."""
    square = np.ones((4096, 4096), np.float32)
    seconds = []
    for _ in range(4):
        begun = time.perf_counter()
        square @ square
        seconds.append(time.perf_counter() - begun)
    return 2 * 4096**3 / min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", required=True, metavar="PYTHON")
    parser.add_argument("--checkpoint", type=Path, default=BUNDLED)
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--most-rows", type=int, default=8)
    parser.add_argument("--no-jobs", action="store_true", help="only the models: jobs last minutes")
    given = parser.parse_args()
    pairs = (("mindspore", sys.executable), ("torch", given.reference))
    sides = [Side(python, name, given.checkpoint, given.size) for name, python in pairs]
    print(f"{given.checkpoint.name} at {given.size}x{given.size}, shortest of {given.repeats}")
    steps: dict[int, float] = {}
    print("| stage | rows | here, ms | torch, ms | here / torch |\n|---|---|---|---|---|")
    try:
        for stage, rows in STAGES:
            if rows > given.most_rows or (given.no_jobs and stage.endswith("job")):
                continue
            for side in sides:
                side.ask(stage, rows)
            turns = [[side.ask(stage, rows) for side in sides] for _ in range(given.repeats)]
            here, torch = (min(each) * 1000 for each in zip(*turns, strict=True))
            print(
                f"| {stage} | {rows} | {here:.1f} | {torch:.1f} | {here / torch:.2f} |", flush=True
            )
            if stage == "UNet step":
                steps[rows] = here
        peak = measured_peak()
        for rows, milliseconds in steps.items():
            done = sides[1].ask("UNet GFLOP", rows) * 1e12 / milliseconds
            print(
                f"UNet step, {rows} rows: {done / 1e9:.0f} GFLOP/s here, {done / peak:.0%} of the"
                f" {peak / 1e9:.0f} that NumPy's product of two large matrices reaches"
            )
    finally:
        for side in sides:
            side.end()


if __name__ == "__main__":
    main()
