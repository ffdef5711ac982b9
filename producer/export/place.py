"""Where an export goes: under a temporary name until it is whole, then renamed."""

import fcntl
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from storage.errors import InvalidSpec

#: What an export's folder says about itself; the field's loaders pass hidden files over.
MARK = ".latentmill-export.json"
_MOST_BYTES = 200


@contextmanager
def whole_folder(out: Path, what: dict[str, Any], force: bool) -> Iterator[Path]:
    """A folder that gets its name when the block ends; broken off, the same export goes on in it.

    Only an export is ever replaced, and only if forced. Raises InvalidSpec.
    """
    _require_free(out, force)
    part = out.with_name(f"{out.name}.part")
    mark = part / MARK
    if part.exists() and not mark.is_file():
        raise InvalidSpec(f"output: {str(part)!r} is there and no export: move it away")
    with _written(part):
        if part.exists() and json.loads(mark.read_text() or "{}") != what:
            shutil.rmtree(part)
        part.mkdir(parents=True, exist_ok=True)
        with mark.open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InvalidSpec(f"output: another export writes into {str(part)!r}") from None
            mark.write_text(json.dumps(what))
            yield part
            old = out.with_name(f"{out.name}.old")
            if out.exists():
                out.rename(old)
            part.rename(out)
        if old.exists():
            shutil.rmtree(old)


@contextmanager
def whole_file(out: Path, force: bool) -> Iterator[Path]:
    """A file that gets its name when the block ends. Raises InvalidSpec."""
    if out.is_dir() or (out.exists() and not force):
        raise InvalidSpec(f"output: {str(out)!r} is there already; --force replaces a file")
    part = out.with_name(f"{out.name}.part")
    with _written(part):
        part.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(out)


def safe_path(name: str) -> str:
    """A relative path below any folder, from whatever a dataset called its sample."""
    parts = [_safe_part(part) for part in re.split(r"[/\\]", name)]
    return "/".join(part for part in parts if part) or "_"


def _safe_part(part: str) -> str:
    """One level of a path; what would lead out of it, or hide it, becomes an underscore."""
    visible = re.sub(r"[\x00-\x1f\x7f]", "_", part)
    visible = re.sub(r"^\.+", lambda dots: "_" * len(dots[0]), visible)
    return visible.encode()[:_MOST_BYTES].decode(errors="ignore")


def _require_free(out: Path, force: bool) -> None:
    if not out.exists():
        return
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()
        return
    if not force:
        raise InvalidSpec(f"output: {str(out)!r} is there already; --force replaces an export")
    if not (out / MARK).is_file():
        raise InvalidSpec(f"output: {str(out)!r} is no export: it is not replaced")


@contextmanager
def _written(part: Path) -> Iterator[None]:
    """One sentence for a full disk."""
    try:
        yield
    except OSError as error:
        raise InvalidSpec(
            f"output: {str(part)!r} cannot be written: {error.strerror}; what is there is kept,"
            " and the same command goes on with it"
        ) from None
