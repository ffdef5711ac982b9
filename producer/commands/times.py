"""Points in time as people write them: ISO 8601, or from now on."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from storage.errors import InvalidSpec

FORMS = "90s, 10m, 2h, 1d from now; or ISO 8601"
RunAt = Annotated[str | None, typer.Option("--run-at", help=f"Not before: {FORMS}.")]
Deadline = Annotated[str | None, typer.Option("--deadline", help=f"Fail if not done: {FORMS}.")]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def times(run_at: str | None, deadline: str | None) -> dict[str, Any]:
    """The fields of a spec; raises InvalidSpec."""
    given = {"run_at": run_at, "deadline": deadline}
    return {name: read_time(name, text) for name, text in given.items() if text is not None}


def read_time(name: str, text: str) -> datetime:
    """A point in time; without an offset it is one of this machine's time zone."""
    try:
        if duration := _DURATION.fullmatch(text.strip()):
            return datetime.now(UTC) + timedelta(**{_UNITS[duration[2]]: float(duration[1])})
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidSpec(
            f"{name}: {text!r} is no time: use {FORMS}, such as 2026-01-31T18:00+01:00"
        ) from None
