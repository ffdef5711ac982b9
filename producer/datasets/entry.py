"""One sample of a source, wherever it came from."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: A file, an object or page by its URL or as a key of the bucket, or the bytes themselves.
Picture = Path | str | bytes
#: Keys of pictures that the bucket keeps already.
INPUT_KEY = re.compile(r"inputs/([0-9a-f]{64})\.[a-z]+")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A sample that could be read; its picture has not been looked at yet."""

    #: Where it stands, for people: `cats/list.csv:12`, `cats/a.png`.
    place: str
    #: What its results are called: a relative path without ending.
    name: str
    #: The source says that no two of its entries have the same name.
    is_key: bool = False
    picture: Picture | None = None
    #: The picture as the source names it, for people and for records. None: it names none.
    file: str | None = None
    #: Stands for the picture's content where that is known without reading it.
    identity: str | None = None
    #: How many pictures are asked for.
    copies: int = 1
    #: Columns by name. Cells that were empty are not among them.
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BadEntry:
    """A sample, or a job of one, that cannot be, and why."""

    place: str
    reason: str
    code: str = "unreadable_row"
    #: What could be read, and of which variant the reason speaks.
    entry: Entry | None = None
    variant: str = ""
