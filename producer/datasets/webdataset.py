"""Entries from WebDataset shards: tar files in which a sample's files share their beginning."""

import json
import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from producer.datasets.entry import BadEntry, Entry
from producer.datasets.folder import PICTURES
from storage.errors import InvalidSpec

#: Texts that are a sample's prompt, by their ending.
PROMPTS = (".txt", ".caption", ".text")
#: Members of more bytes are not read.
LARGEST = 512 * 2**20


def read_shard(file: Path, root: Path) -> Iterator[Entry | BadEntry]:
    """The samples of one shard, in its order; `a/b.seg.png` belongs to the sample `a/b`."""
    shown = file.relative_to(root).as_posix()
    try:
        with tarfile.open(file, "r|*") as tar:
            for key, members in groupby(_members(tar, shown), key=lambda member: member[0]):
                yield _sample(f"{shown}:{key}", key, [(end, data) for _, end, data in members])
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InvalidSpec(f"{shown}: no tar file, or cut short: {error}") from None


def _members(tar: tarfile.TarFile, shown: str) -> Iterator[tuple[str, str, bytes]]:
    for member in tar:
        if not member.isfile():
            continue
        folder, _, name = member.name.removeprefix("./").rpartition("/")
        base, dot, ending = name.partition(".")
        if not base:
            continue
        if member.size > LARGEST:
            raise InvalidSpec(f"{shown}: {member.name} has {member.size} bytes, of {LARGEST}")
        content = tar.extractfile(member)
        data = content.read() if content is not None else b""
        yield f"{folder}/{base}" if folder else base, f"{dot}{ending}".lower(), data


def _sample(place: str, key: str, members: list[tuple[str, bytes]]) -> Entry | BadEntry:
    values: dict[str, Any] = {}
    picture: bytes | None = None
    file: str | None = None
    for ending, data in members:
        if ending in PICTURES:
            picture, file = data, f"{key}{ending}"
        elif ending == ".json" or ending in PROMPTS:
            try:
                text = data.decode("utf-8-sig")
                found = json.loads(text) if ending == ".json" else {"prompt": text.strip()}
            except ValueError as error:
                return BadEntry(place=place, reason=f"its {ending[1:]}: {error}")
            if not isinstance(found, dict):
                return BadEntry(place=place, reason="its json: no JSON object")
            values = found | values if ending == ".json" else values | found
    values = {name: value for name, value in values.items() if value not in (None, "")}
    return Entry(place=place, name=key, is_key=True, picture=picture, file=file, values=values)
