"""Reading the `config.json` of a model: known fields, and a refusal of networks not built here."""

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

from worker.diffusion.errors import CheckpointError


def read_config(
    cls: type, config: Mapping[str, Any], fixed: Mapping[str, tuple[Any, ...]], name: str
) -> dict[str, Any]:
    """The values for the fields of a dataclass, with its defaults for fields that are absent.

    `fixed` holds the fields that change the network, each with the values that ask for the network
    as it is built here; any other value raises CheckpointError. Other fields do not matter.
    """
    for field, allowed in fixed.items():
        if field in config and config[field] not in allowed:
            require([config[field]], allowed, f"{name} {field}")
    values = {}
    for field in fields(cls):
        value = config.get(field.name, field.default)
        values[field.name] = tuple(value) if isinstance(value, list) else value
    return values


def one_for_each(value: Any, count: int, name: str) -> tuple[Any, ...]:
    """A number stands for the same number at each of `count` levels; a list has that length."""
    if not isinstance(value, tuple):
        return (value,) * count
    if len(value) != count:
        raise CheckpointError(
            f"{name} has {len(value)} entries, but block_out_channels has {count}."
        )
    return value


def require(values: Collection[Any], allowed: Collection[Any], name: str) -> None:
    """Raises CheckpointError for the first value that is not among those built here."""
    for value in values:
        if value not in allowed:
            choices = " or ".join(repr(a) for a in allowed)
            raise CheckpointError(f"{name} is {value!r}; only {choices} is supported.")
