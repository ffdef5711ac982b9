"""Where pictures are written: never over a file that is there, unless told to."""

from pathlib import Path
from typing import Annotated

import typer

from producer.job import Job, write_whole
from storage.errors import InvalidSpec

Force = Annotated[bool, typer.Option("--force", help="Replace files that are there.")]


def require_free(path: Path, force: bool) -> None:
    """Raises InvalidSpec when the file is there, unless it may be replaced."""
    if path.exists() and not force:
        raise InvalidSpec(f"output: {str(path)!r} is there already; --force replaces it")


def save(job: Job, path: Path, step: int | None = None) -> Path:
    """Write a job's picture; raises InvalidSpec when the place cannot be written."""
    try:
        return job.save(path, step)
    except OSError as error:
        raise InvalidSpec(
            f"output: {str(path)!r} cannot be written: {error.strerror};"
            f" the picture is kept: latentmill fetch {job.id}"
        ) from None


def write(path: Path, data: bytes) -> Path:
    """Write a file; raises InvalidSpec when the place cannot be written."""
    try:
        return write_whole(path, data)
    except OSError as error:
        raise InvalidSpec(f"output: {str(path)!r} cannot be written: {error.strerror}") from None
