"""When a worker has done enough and should leave, between two jobs, for a fresh process.

Accelerator runtimes lose memory over days; a process that ends gives all of it back.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """None: without end."""

    max_jobs: int | None = None
    #: Of this process, in bytes.
    max_memory: int | None = None

    def reached(self, jobs: int) -> str | None:
        """Why a worker that has run so many jobs should leave now, if it should."""
        if self.max_jobs is not None and jobs >= self.max_jobs:
            return f"{jobs} jobs are done"
        if self.max_memory is not None and (used := resident_bytes()) > self.max_memory:
            return f"{used / 2**30:.2f} GiB of memory are in use"
        return None


def parse_size(text: str) -> int:
    """Bytes of `8G`, `500M` or a plain number, in powers of 1024; raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)", text.strip().upper())
    if not match or not float(match[1]):
        raise ValueError(f"{text!r} is no size: it must be such as 8G or 500M")
    return int(float(match[1]) * _UNITS[match[2]])


def resident_bytes() -> int:
    """Memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
