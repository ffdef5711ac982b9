"""Files of JSON lines, written as they come, whole or not at all."""

import json
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from storage.errors import InvalidSpec


def write_lines(path: Path, values: Iterable[dict[str, Any]]) -> int:
    """Write one JSON object a line, replacing what was there; says how many.

    Where there are none nothing is written. Raises InvalidSpec when the place cannot be written.
    """
    part, count = path.with_name(f".{path.name}.{secrets.token_hex(4)}"), 0
    try:
        with part.open("x", encoding="utf-8", errors="replace") as file:
            for value in values:
                file.write(json.dumps(value, ensure_ascii=False) + "\n")
                count += 1
        if count:
            part.replace(path)
    except OSError as error:
        raise InvalidSpec(f"output: {str(path)!r} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    return count
