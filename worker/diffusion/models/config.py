"""Reading the `config.json` of a model: known fields, and a refusal of networks not built here."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from typing import Any

from worker.diffusion.errors import CheckpointError

NAMES = {bool: "true or false", float: "number", int: "positive whole number", str: "name"}


def read_config(
    cls: type, config: Mapping[str, Any], fixed: Mapping[str, tuple[Any, ...]], name: str
) -> dict[str, Any]:
    """The values for the fields of a dataclass, with its defaults for fields that are absent.

    A field whose default is a tuple has one entry a level, as many as `block_out_channels`; a lone
    value stands for itself at each. Whole numbers are at least 1, or the `least` of the field's
    metadata. `fixed` holds the fields that change the network, each with the values that ask for it
    as it is built here; any other value raises CheckpointError, and so does a value of a wrong
    type. Other fields do not matter.
    """
    for key, allowed in fixed.items():
        if key in config:
            require([config[key]], allowed, f"{name} {key}")
    values = {field.name: _read(field, config, name) for field in fields(cls)}
    levels = len(values.get("block_out_channels", ()))
    for field in fields(cls):
        value = values[field.name]
        if isinstance(value, tuple) and len(value) != levels:
            if isinstance(config.get(field.name), list):
                raise CheckpointError(
                    f"{name} {field.name} has {len(value)} entries, block_out_channels {levels}."
                )
            values[field.name] = value[:1] * levels
    return values


def _read(field: Any, config: Mapping[str, Any], name: str) -> Any:
    value = config.get(field.name, field.default)
    by_level = isinstance(field.default, tuple)
    kind = type(field.default[0] if by_level else field.default)
    entries = tuple(value) if by_level and isinstance(value, list | tuple) else (value,)
    least = field.metadata.get("least", 1)
    if not entries or not all(_is(entry, kind, least) for entry in entries):
        raise CheckpointError(f"{name} {field.name} is {value!r}, which is no {NAMES[kind]}.")
    return entries if by_level else value


def _is(value: Any, kind: type, least: int) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and value >= least
    return type(value) is kind


def require(values: Collection[Any], allowed: Collection[Any], name: str) -> None:
    """Raises CheckpointError for the first value that is not among those built here."""
    for value in values:
        if value not in allowed:
            choices = " or ".join(repr(a) for a in allowed)
            raise CheckpointError(f"{name} is {value!r}; only {choices} is supported.")


def divides(divisor: int, channels: Iterable[int], name: str) -> None:
    """Raises CheckpointError for channels that do not split evenly, into heads or groups."""
    for count in channels:
        if count % divisor:
            raise CheckpointError(f"{name} is {divisor}, which does not divide {count} channels.")
