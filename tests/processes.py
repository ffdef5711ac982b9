"""Finding server processes, to kill or freeze them."""

from pathlib import Path


def pid_of_valkey(folder: Path) -> int:
    """The server whose data lie in or below `folder`."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            started = (process / "comm").read_text().startswith("valkey")
            if started and (process / "cwd").readlink().is_relative_to(folder):
                return int(process.name)
        except OSError:
            continue
    raise AssertionError("no Valkey runs here")
