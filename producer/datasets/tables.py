"""Entries from tables: CSV, JSON lines and Parquet, one row each.

Nothing is held but the row at hand, so that a table may have any length. A row that cannot be
read becomes a bad entry with its line; the others go on.
"""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from producer.datasets.entry import INPUT_KEY, BadEntry, Entry, Picture
from storage.errors import InvalidSpec, NotConfigured

#: Columns that hold the picture, the first of them that a row has: a path relative to the table,
#: a URL, or as Parquet files of the Hugging Face hub have it, bytes with a path.
PICTURE_COLUMNS = ("file_name", "image", "input", "image_path", "path", "url")
#: Rows of a Parquet file in memory at a time.
PARQUET_ROWS = 256

#: What a path's last part ends with; a name that is only an ending keeps it.
_ENDING = re.compile(r"(?<=[^/])\.[^./]+$")

Row = tuple[str, dict[str, Any]] | BadEntry


def read_table(
    file: Path,
    root: Path,
    picture_column: str | None = None,
    picture_needed: bool = False,
) -> Iterator[Entry | BadEntry]:
    """The rows of a table; places and names are relative to `root`.

    A row without a picture is one for text2img, unless pictures are needed.
    """
    readers = {".csv": csv_rows, ".jsonl": jsonl_rows, ".parquet": parquet_rows}
    shown = file.relative_to(root).as_posix()
    columns = (picture_column,) if picture_column else PICTURE_COLUMNS
    inner = file.parent.relative_to(root)
    for number, row in enumerate(readers[file.suffix.lower()](file, shown)):
        made = (
            row if isinstance(row, BadEntry) else entry(*row, file.parent, inner, number, columns)
        )
        if picture_needed and isinstance(made, Entry) and made.picture is None:
            made = BadEntry(
                place=made.place, reason=f"none of these is given: {', '.join(columns)}"
            )
        yield made


def csv_rows(file: Path, shown: str) -> Iterator[Row]:
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        reader = csv.reader(text)
        try:
            header = next(reader, None)
        except csv.Error as error:
            raise InvalidSpec(f"{shown}:1: not CSV: {error}") from None
        if header is None:
            raise InvalidSpec(f"{shown}: it is empty; its first line must name the columns")
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            raise InvalidSpec(f"{shown}:1: columns named twice: {', '.join(twice)}")
        while True:
            line = reader.line_num + 1
            place = f"{shown}:{line}"
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield BadEntry(place=place, reason=f"not CSV: {error}")
                continue
            if not cells:
                continue
            if len(cells) != len(header):
                reason = f"it has {len(cells)} cells, the header {len(header)}"
                yield BadEntry(place=place, reason=reason)
            elif any("\udc80" <= c <= "\udcff" for cell in cells for c in cell):
                yield BadEntry(place=place, reason="it is not UTF-8")
            else:
                yield place, dict(zip(header, cells, strict=True))


def jsonl_rows(file: Path, shown: str) -> Iterator[Row]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            place = f"{shown}:{number}"
            try:
                values = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError:
                yield BadEntry(place=place, reason="it is not UTF-8")
                continue
            except ValueError as error:
                yield BadEntry(place=place, reason=f"not JSON: {error}")
                continue
            if isinstance(values, dict):
                yield place, values
            else:
                yield BadEntry(place=place, reason="it is no JSON object")


def parquet_rows(file: Path, shown: str) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise NotConfigured(
            f"{shown}: Parquet files need pyarrow: pip install 'latentmill[parquet]'"
        ) from None
    try:
        table = pyarrow.parquet.ParquetFile(file)
    except (OSError, pyarrow.ArrowException) as error:
        raise InvalidSpec(f"{shown}: no Parquet file: {error}") from None
    number = 0
    with table:
        for batch in table.iter_batches(batch_size=PARQUET_ROWS):
            for values in batch.to_pylist():
                number += 1
                yield f"{shown}:{number}", values


def entry(
    place: str,
    values: dict[str, Any],
    folder: Path,
    inner: Path,
    number: int,
    columns: tuple[str, ...] = PICTURE_COLUMNS,
) -> Entry | BadEntry:
    """One row as an entry; `inner` is where its table's folder lies within the source."""
    values = {name: value for name, value in values.items() if not _is_empty(value)}
    column = next((name for name in columns if name in values), None)
    if column is None:
        name = (inner / f"{number:08}").as_posix()
        return Entry(place=place, name=name, values=values)
    cell = values.pop(column)
    data, path = (
        (cell.get("bytes"), cell.get("path")) if isinstance(cell, Mapping) else (None, cell)
    )
    if not isinstance(data, bytes | None) or not isinstance(path, str | None) or not (data or path):
        return BadEntry(place=place, reason=f"{column}: it must be a path or a URL")
    if path and "\0" in path:
        return BadEntry(place=place, reason=f"{column}: {path!r} is no path")
    name = (stem(path) if path else "") or f"{number:08}"
    if path and "://" in path:
        return Entry(place=place, name=name, picture=data or path, file=path, values=values)
    return Entry(
        place=place,
        name=(inner / name).as_posix(),
        picture=data or placed(str(path), folder),
        file=(inner / (path or name)).as_posix(),
        values=values,
    )


def placed(path: str, folder: Path) -> Picture:
    """Where the picture is that a table in this folder names."""
    return path if "://" in path or INPUT_KEY.fullmatch(path) else folder / path


def stem(path: str) -> str:
    """What a result of this picture is called: its path without ending, never above its root."""
    plain = path.split("://", 1)[-1].partition("?")[0].replace("\\", "/")
    parts = _ENDING.sub("", plain).split("/")
    return "/".join(part for part in parts if part not in ("", "..", "."))


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())
