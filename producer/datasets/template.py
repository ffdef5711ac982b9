"""Texts with `{column}` in them."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from storage.errors import InvalidSpec

PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")

#: A piece of text as it is, and the column that follows it (None: none does).
Part = tuple[str, str | None]


@lru_cache(1000)
def parts(text: str) -> tuple[Part, ...]:
    """What a text consists of; `{{` and `}}` are brackets. Raises InvalidSpec."""
    found: list[Part] = []
    literal, end = "", 0
    for piece in PIECE.finditer(text):
        literal += text[end : piece.start()]
        end = piece.end()
        if piece[0] in ("{", "}"):
            raise InvalidSpec(
                f"{text!r} has a lone {piece[0]!r}; write {piece[0] * 2} where it is text"
            )
        if piece[1] is None:
            literal += piece[0][0]
        else:
            found.append((literal, piece[1].strip()))
            literal = ""
    return (*found, (literal + text[end:], None))


class Template:
    """Fields whose texts may name columns."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        """Raises InvalidSpec for a text that is no template."""
        self._fields = dict(fields)
        texts = {name: text for name, text in fields.items() if isinstance(text, str)}
        #: Those that name a column, and so differ from row to row; in the recipe's order, so that
        #: of several that are wrong the first is named.
        self.open = tuple(name for name, text in texts.items() if columns_of(text))
        plain = {name: fill(text, {}) for name, text in texts.items() if name not in self.open}
        self._plain = self._fields | plain

    def filled(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The fields with a row's values. Raises InvalidSpec as `fill`, naming the field."""
        found = dict(self._plain)
        for name in self.open:
            try:
                found[name] = fill(self._fields[name], values)
            except InvalidSpec as error:
                raise InvalidSpec(f"{name}: {error}") from None
        return found


def columns_of(text: str) -> list[str]:
    """The columns that a text names. Raises InvalidSpec."""
    return [column for _, column in parts(text) if column is not None]


def fill(text: str, values: Mapping[str, Any]) -> str:
    """The text with its columns' values. Raises InvalidSpec that names a column that is not there.

    No value is looked into: a cell that reads `{other}` stays as it is.
    """
    filled = ""
    for literal, column in parts(text):
        filled += literal
        if column is None:
            continue
        if column not in values:
            there = ", ".join(sorted(values)) or "none"
            lack = f"{text!r} names the column {column!r}, which is missing or empty"
            raise InvalidSpec(f"{lack}; there is: {there}")
        filled += str(values[column])
    return filled
