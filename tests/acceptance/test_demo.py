"""`latentmill demo`, as a newcomer runs it."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

LATENTMILL = Path(sys.executable).parent / "latentmill"


def test_the_demo_leaves_pictures_and_no_process(tmp_path: Path) -> None:
    home, output = tmp_path / "home", tmp_path / "out"
    done = subprocess.run(
        [LATENTMILL, "demo", "--output", output, "--json"],
        env={**os.environ, "LATENTMILL_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert Path(json.loads(done.stdout)["grid"]) == output / "grid.png"

    names = ("input", "img2img", "chain-step-1", "chain")
    pictures = [np.asarray(Image.open(output / f"{name}.png").convert("RGB")) for name in names]
    assert {picture.shape for picture in pictures} == {(64, 64, 3)}
    assert all(picture.std() > 10 for picture in pictures)
    assert not any(np.array_equal(a, b) for a, b in itertools.combinations(pictures, 2))
    assert not (home / "demo" / "stack.json").exists()
    assert processes_of(home) == []


def processes_of(home: Path) -> list[str]:
    """The command lines of processes that were told of this home."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            told = str(home) in command or str(home).encode() in (process / "environ").read_bytes()
        except OSError:
            continue
        if told:
            found.append(command)
    return found
