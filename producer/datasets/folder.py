"""Entries from a folder: pictures with their prompts beside them, or as its metadata file says."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from producer.datasets.entry import BadEntry, Entry
from producer.datasets.tables import read_table
from storage.picture import EXTENSIONS

#: Files that say what a folder's pictures are about, as datasets of the Hugging Face hub do.
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
PICTURES = frozenset(f".{ending}" for ending in (*EXTENSIONS.values(), "jpeg", "tiff"))


def read_folder(root: Path) -> Iterator[Entry | BadEntry]:
    """The pictures in a folder and below, in order of their names.

    A metadata file stands for its folder with all below it. Elsewhere the text beside a picture,
    `cat.txt` for `cat.png`, is its prompt.
    """
    yield from _walk(root, root)


def _walk(folder: Path, root: Path) -> Iterator[Entry | BadEntry]:
    with os.scandir(folder) as found:
        items = sorted(found, key=lambda item: item.name)
    names = {item.name for item in items}
    for metadata in METADATA:
        if metadata in names:
            yield from read_table(folder / metadata, root, picture_needed=True)
            return
    stems = Counter(Path(name).stem for name in names if is_picture(name))
    for item in items:
        if item.name.startswith("."):
            continue
        path = Path(item.path)
        if item.is_dir(follow_symlinks=False):
            yield from _walk(path, root)
        elif is_picture(item.name):
            beside = f"{path.stem}.txt" in names
            yield _picture(path, root, beside, alone=stems[path.stem] == 1)


def is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in PICTURES


def _picture(path: Path, root: Path, beside: bool, alone: bool) -> Entry | BadEntry:
    relative = path.relative_to(root)
    values = {}
    if beside:
        try:
            values["prompt"] = path.with_suffix(".txt").read_text("utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            return BadEntry(place=relative.as_posix(), reason=f"its prompt: {error}")
    return Entry(
        place=relative.as_posix(),
        # cat.png and cat.jpg of one folder keep their endings.
        name=(relative.with_suffix("") if alone else relative).as_posix(),
        picture=path,
        file=relative.as_posix(),
        values={name: value for name, value in values.items() if value},
    )
