"""From what a user names to entries: which reader reads it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from producer.datasets.entry import BadEntry, Entry
from producer.datasets.folder import METADATA, is_picture, read_folder
from producer.datasets.openai_batch import is_openai_batch, read_openai_batch
from producer.datasets.s3 import read_object, read_prefix
from producer.datasets.tables import read_table
from producer.datasets.webdataset import read_shard
from storage.errors import InvalidSpec
from storage.inputs import bucket_and_key
from storage.objects import Objects
from storage.settings import Settings

Entries = Iterator[Entry | BadEntry]
Reader = Callable[[Path, Path], Entries]
TABLES = (".csv", ".jsonl", ".parquet")
SHARD = ".tar"


def read_source(
    source: str,
    *,
    picture_column: str | None = None,
    settings: Settings | None = None,
    objects: Objects | None = None,
) -> Entries:
    """The entries of a folder, a table, WebDataset shards, or what lies in S3 of all these.

    A folder is one of shards when it has any (`*.tar`, or `*.parquet` other than metadata), else
    one of pictures. Read as they are asked for: a source may be longer than memory. Raises
    InvalidSpec for a source that is none of these; `s3://` needs settings and objects.
    """
    with _explained():
        return _explaining(_entries(source, picture_column, settings, objects))


def _explaining(entries: Entries) -> Entries:
    with _explained():
        yield from entries


@contextmanager
def _explained() -> Iterator[None]:
    """One sentence for what the file system says of a source."""
    try:
        yield
    except OSError as error:
        raise InvalidSpec(f"source: {error.filename!r}: {error.strerror}") from None


def _entries(
    source: str,
    picture_column: str | None,
    settings: Settings | None,
    objects: Objects | None,
) -> Entries:
    if source.startswith("s3://"):
        if settings is None or objects is None:
            raise InvalidSpec(f"source: {source!r} needs an object store")
        return _from_s3(source, settings, objects, picture_column)
    path = Path(source).expanduser()
    if path.is_dir():
        return _from_folder(path, picture_column)
    if not path.is_file():
        raise InvalidSpec(f"source: there is no file or folder {source!r}")
    reader = _reader(path.name, picture_column)
    if reader is None:
        hint = "; one picture is the matter of `latentmill img2img`"
        raise InvalidSpec(
            f"source: {source!r} is none of: a folder, an s3:// prefix, a file that ends with"
            f" {', '.join((*TABLES, SHARD))}{hint if is_picture(path.name) else ''}"
        )
    return reader(path, path.parent)


def _from_folder(path: Path, picture_column: str | None) -> Entries:
    files = sorted(path.iterdir())
    shards = [file for file in files if file.suffix in (SHARD, ".parquet")]
    shards = [file for file in shards if file.name not in METADATA]
    if not shards:
        return read_folder(path)
    read = partial(_read_file, picture_column=picture_column)
    return (entry for shard in shards for entry in read(shard, path))


def _from_s3(
    source: str, settings: Settings, objects: Objects, picture_column: str | None
) -> Entries:
    bucket, key = bucket_and_key(source, settings)
    reader = _reader(key, picture_column)
    if reader is not None:
        return read_object(objects, bucket, key, reader)
    table = partial(read_table, picture_column=picture_column, picture_needed=True)
    return read_prefix(objects, bucket, key, table, read_shard)


def _reader(name: str, picture_column: str | None) -> Reader | None:
    if not name.lower().endswith((*TABLES, SHARD)):
        return None
    return partial(_read_file, picture_column=picture_column)


def _read_file(file: Path, root: Path, picture_column: str | None) -> Entries:
    ending = file.suffix.lower()
    if ending == SHARD:
        return read_shard(file, root)
    if ending == ".jsonl" and is_openai_batch(file):
        return read_openai_batch(file, root)
    return read_table(file, root, picture_column)
