"""Python code run in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path


def run_python(code: str, *arguments: str, **environment: str) -> str:
    """The output of a fresh process, without what MindSpore writes to its log."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
