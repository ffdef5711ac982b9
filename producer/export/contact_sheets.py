"""Contact sheets: a batch at a glance, forty-eight pictures a sheet."""

import io
import itertools
from pathlib import Path

from PIL import Image

from producer.export.rows import Export, Outcome
from producer.grid import make_grid
from producer.job import write_whole

COLUMNS, ROWS, SIDE = 8, 6, 192


def write_contact_sheets(export: Export, folder: Path) -> Outcome:
    """JPEGs of all results in the order of their rows, each above its name."""
    outcome = Outcome()
    found = export.pictures(export.items())
    for number in itertools.count():
        cells = list(itertools.islice(found, COLUMNS * ROWS))
        if not cells:
            return outcome
        outcome.missing += [item.name for item, data in cells if data is None]
        there = [(item, data) for item, data in cells if data is not None]
        if there:
            pictures = [Image.open(io.BytesIO(data)) for _, data in there]
            captions = [_broken(item.name) for item, _ in there]
            out = io.BytesIO()
            make_grid(pictures, captions, COLUMNS, SIDE).save(out, "JPEG", quality=90)
            write_whole(folder / f"{number:04}.jpg", out.getvalue())
            outcome.written += len(there)
    return outcome


def _broken(name: str, width: int = 24) -> str:
    """A name in pieces that fit below a picture: it has no spaces of its own."""
    pieces = [name[first : first + width] for first in range(0, len(name), width)]
    return " ".join(pieces[:3])
