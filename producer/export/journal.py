"""What an export has written so far: it goes on after a crash, whatever came in meanwhile."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAME = ".journal.sqlite3"
#: Files between two commits.
EVERY = 200


class Journal:
    """A line of metadata for each file, and the names that are taken."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / NAME
        self._database = sqlite3.connect(self._file)
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS files (number INTEGER PRIMARY KEY, job TEXT, line TEXT,"
            " name TEXT UNIQUE COLLATE NOCASE)"
        )
        self._open = 0

    def name(self, number: int, wanted: str, ending: str) -> str:
        """A name of its own for each row: that of its input, unless another row has it."""
        name = f"{wanted}.{ending}"
        query = "SELECT 1 FROM files WHERE name = ? AND number != ?"
        if self._database.execute(query, (name, number)).fetchone():
            name = f"{wanted}-{number}.{ending}"
        return name

    def written(self, number: int, job: str) -> bool:
        """Whether the result of this job stands for this row already."""
        query = "SELECT 1 FROM files WHERE number = ? AND job = ?"
        return self._database.execute(query, (number, job)).fetchone() is not None

    def note(self, number: int, job: str, line: dict[str, Any]) -> None:
        """A file is there, whole, under the name that the line gives it."""
        values = (number, job, json.dumps(line, ensure_ascii=False), line["file_name"])
        self._database.execute(
            "INSERT INTO files VALUES (?, ?, ?, ?) ON CONFLICT (number)"
            " DO UPDATE SET job = excluded.job, line = excluded.line, name = excluded.name",
            values,
        )
        self._open += 1
        if self._open >= EVERY:
            self._database.commit()
            self._open = 0

    def lines(self) -> Iterator[str]:
        """All of them, by row."""
        for (line,) in self._database.execute("SELECT line FROM files ORDER BY number"):
            yield line

    def close(self) -> None:
        """Keep it for the next time."""
        self._database.commit()
        self._database.close()

    def remove(self) -> None:
        self._database.close()
        self._file.unlink()
