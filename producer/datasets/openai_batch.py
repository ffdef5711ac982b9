"""Entries from a file of the OpenAI Batch API: one request for a picture a line."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from producer.datasets.entry import BadEntry, Entry
from producer.datasets.tables import jsonl_rows, placed

URLS = ("/v1/images/generations", "/v1/images/edits")
_NAME = re.compile(r"[\w.:-]{1,200}")
#: What a request's body may say; `n` pictures of one prompt are variants of its seed.
FIELDS = ("model", "prompt", "image", "size", "n", "seed")
#: One request leads to so many jobs at most.
MOST_COPIES = 1000


def is_openai_batch(file: Path) -> bool:
    """Whether the first line of a file is a request of that API."""
    with file.open("rb") as lines:
        try:
            first = json.loads(lines.readline())
        except ValueError:
            return False
    return isinstance(first, dict) and {"custom_id", "url", "body"} <= first.keys()


def read_openai_batch(file: Path, root: Path) -> Iterator[Entry | BadEntry]:
    """The requests of a file; `custom_id` is both name and column."""
    shown = file.relative_to(root).as_posix()
    for row in jsonl_rows(file, shown):
        if isinstance(row, BadEntry):
            yield row
            continue
        place, request = row
        try:
            yield _entry(place, request, file.parent)
        except ValueError as error:
            yield BadEntry(place=place, reason=str(error), entry=_named(place, request))


def _named(place: str, request: dict[str, Any]) -> Entry | None:
    """What answers to a request that cannot be read."""
    custom_id = request.get("custom_id")
    if not isinstance(custom_id, str) or not _NAME.fullmatch(custom_id):
        return None
    return Entry(place=place, name=custom_id, is_key=True, values={"custom_id": custom_id})


def _entry(place: str, request: dict[str, Any], folder: Path) -> Entry:
    custom_id, body = request.get("custom_id"), request.get("body")
    if not isinstance(custom_id, str) or not _NAME.fullmatch(custom_id):
        raise ValueError(f"custom_id: {custom_id!r} is no name of letters, digits, '.', '-', '_'")
    if request.get("url") not in URLS:
        raise ValueError(f"url: {request.get('url')!r} is none of {', '.join(URLS)}")
    if not isinstance(body, dict):
        raise ValueError("body: it must be an object")
    unknown = sorted(body.keys() - set(FIELDS))
    if unknown:
        raise ValueError(f"body.{unknown[0]}: not known; allowed: {', '.join(FIELDS)}")
    values = {name: body[name] for name in ("model", "prompt", "seed") if name in body}
    if (size := body.get("size", "auto")) != "auto":
        match = re.fullmatch(r"(\d+)x(\d+)", str(size))
        if not match:
            raise ValueError(f"body.size: {size!r} is not of the form 512x512")
        values |= {"width": int(match[1]), "height": int(match[2])}
    copies, file = body.get("n", 1), body.get("image")
    if not isinstance(copies, int) or not 1 <= copies <= MOST_COPIES:
        raise ValueError(f"body.n: {copies!r} is not from 1 to {MOST_COPIES}")
    if not isinstance(file, str | None):
        raise ValueError("body.image: it must be a path or a URL")
    return Entry(
        place=place,
        name=custom_id,
        is_key=True,
        picture=placed(file, folder) if file else None,
        file=file,
        copies=copies,
        values={**values, "custom_id": custom_id},
    )
