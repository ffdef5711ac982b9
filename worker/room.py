"""How many rows of one model and size the device takes at once: measured, and remembered."""

import json
import logging
import tempfile
from pathlib import Path

from storage.models import Model

logger = logging.getLogger(__name__)

#: Rows of a group that nobody has measured.
UNMEASURED = 16
ROOM_FILE = "room.json"


class Room:
    """The most rows of a group in flight, kept in a file that all workers of a home share.

    `latentmill bench calibrate` writes it; a group that runs out of memory halves its own number.
    """

    def __init__(self, home: Path | None, device: str) -> None:
        """Without a home it is remembered by this object alone."""
        self._file, self._device = home and home / ROOM_FILE, device
        self._rows: dict[str, int] = self._read()

    def rows(self, model: Model, shape: tuple[int, ...]) -> int:
        """The most rows whose latents have this shape [C, h, w]."""
        return self._rows.get(self._name(model, shape), UNMEASURED)

    def note(self, model: Model, shape: tuple[int, ...], rows: int) -> None:
        """From now on so many rows and no more, after a restart too."""
        name = self._name(model, shape)
        # What others have noted meanwhile stays.
        self._rows |= {**self._read(), name: rows}
        try:
            self._write()
        except OSError as error:
            logger.warning("%s cannot be written: %s", self._file, error)

    def halve(self, model: Model, shape: tuple[int, ...], rows: int) -> None:
        """So many rows were too many."""
        fewer = max(1, rows // 2)
        logger.warning(
            "model %s: out of memory with %d rows, from now on %d", model.alias, rows, fewer
        )
        self.note(model, shape, fewer)

    def _name(self, model: Model, shape: tuple[int, ...]) -> str:
        size = "x".join(map(str, shape))
        return f"{self._device} {model.source} {model.variant or '-'} {model.dtype} {size}"

    def _read(self) -> dict[str, int]:
        if self._file is None:
            return {}
        try:
            found = json.loads(self._file.read_text())
            return {str(name): max(1, int(rows)) for name, rows in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            logger.warning("%s is of no use, it will be written anew: %s", self._file, error)
            return {}

    def _write(self) -> None:
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=self._file.parent, prefix=ROOM_FILE, delete=False
        ) as file:
            json.dump(self._rows, file, indent=1, sort_keys=True)
        Path(file.name).replace(self._file)
