"""Entries from S3: pictures below a prefix, or a table or tar that is kept there."""

import posixpath
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path

from producer.datasets.entry import INPUT_KEY, BadEntry, Entry
from producer.datasets.folder import METADATA, is_picture
from producer.datasets.tables import stem
from storage.errors import InvalidSpec, LatentmillError, NotFound
from storage.objects import Listed, Objects

#: Texts beside pictures that are read at the same time, and how many are read ahead.
THREADS, AHEAD = 16, 500
#: Longer texts are no prompts.
LONGEST_TEXT = 100_000

#: Reads a file of a folder; places and names are relative to that.
Reader = Callable[[Path, Path], Iterator[Entry | BadEntry]]


def read_prefix(
    objects: Objects, bucket: str, prefix: str, read_metadata: Reader, read_tar: Reader
) -> Iterator[Entry | BadEntry]:
    """The pictures and shards below a prefix, in order of their keys.

    `cat.txt` beside `cat.png` is its prompt. A metadata file at the prefix stands for all of it.
    Raises InvalidSpec when there is nothing.
    """
    folder = prefix if not prefix or prefix.endswith("/") else f"{prefix}/"
    for name in METADATA:
        if any(item.key == folder + name for item in objects.listed(folder + name, bucket=bucket)):
            yield from read_object(objects, bucket, folder + name, read_metadata)
            return
    found = False
    listed = objects.listed(prefix, bucket=bucket)
    with ThreadPoolExecutor(THREADS) as pool:
        samples = groupby(listed, key=lambda item: _sample(item.key))
        groups = (list(items) for _, items in samples)
        while ahead := list(islice(groups, AHEAD)):
            texts = [item for items in ahead for item in _texts(items)]
            prompts = dict(pool.map(lambda item: _read(objects, bucket, item), texts))
            for items in ahead:
                for item in items:
                    if is_picture(item.key):
                        found = True
                        yield _entry(bucket, folder, item, items, prompts)
                    elif item.key.endswith(".tar"):
                        found = True
                        yield from read_object(objects, bucket, item.key, read_tar)
    if not found:
        raise InvalidSpec(f"source: no pictures below s3://{bucket}/{prefix}")


def read_object(
    objects: Objects, bucket: str, key: str, reader: Reader
) -> Iterator[Entry | BadEntry]:
    """The entries of one file in S3; pictures that it names by a path lie beside it."""
    folder, name = posixpath.split(key)
    with tempfile.TemporaryDirectory(prefix="latentmill-") as place:
        file = Path(place) / name
        with file.open("wb") as out:
            try:
                objects.download(bucket, key, out)
            except NotFound:
                raise InvalidSpec(f"source: there is no object s3://{bucket}/{key}") from None
        for entry in reader(file, file.parent):
            if isinstance(entry, Entry) and isinstance(entry.picture, Path):
                path = posixpath.join(folder, entry.picture.relative_to(place).as_posix())
                url = f"s3://{bucket}/{posixpath.normpath(path)}"
                yield replace(entry, picture=url)
            else:
                yield entry


def _sample(key: str) -> str:
    """What the files of one sample share; in a listing they follow each other."""
    folder, name = posixpath.split(key)
    return f"{folder}/{name.partition('.')[0]}"


def _texts(items: list[Listed]) -> list[Listed]:
    """The prompts among a sample's files."""
    stems = {stem(item.key) for item in items if is_picture(item.key)}
    return [item for item in items if item.key.endswith(".txt") and stem(item.key) in stems]


def _read(objects: Objects, bucket: str, item: Listed) -> tuple[str, str | LatentmillError]:
    try:
        data = objects.read(bucket, item.key, LONGEST_TEXT)
        return stem(item.key), data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        return stem(item.key), InvalidSpec(str(error))
    except NotFound as error:
        return stem(item.key), error


def _entry(
    bucket: str,
    folder: str,
    item: Listed,
    items: list[Listed],
    prompts: dict[str, str | LatentmillError],
) -> Entry | BadEntry:
    own = item.key.removeprefix(folder)
    prompt = prompts.get(stem(item.key))
    if isinstance(prompt, LatentmillError):
        return BadEntry(place=own, reason=f"its prompt: {prompt}")
    alone = sum(is_picture(each.key) and stem(each.key) == stem(item.key) for each in items) == 1
    kept = INPUT_KEY.fullmatch(item.key)
    return Entry(
        place=own,
        name=stem(own) if alone else own,
        picture=item.key if kept else f"s3://{bucket}/{item.key}",
        file=own,
        identity=kept[1] if kept else f"etag:{item.etag}:{item.size}",
        values={"prompt": prompt} if prompt else {},
    )
