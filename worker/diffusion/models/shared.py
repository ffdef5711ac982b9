"""Models that several loaded checkpoints have in common are held, and compiled, once."""

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import mindspore as ms

from worker.diffusion.safetensors_file import StoredTensor
from worker.diffusion.weights import Weight, shape

M = TypeVar("M")


@dataclass(frozen=True)
class Held:
    """A loaded model, as long as somebody uses it, and what it was made of."""

    model: "weakref.ref[Any]"
    config: object
    dtype: ms.dtype
    stored: Mapping[str, Weight]


#: What is loaded now, by the kind of model. Like all of MindSpore, used by one thread only.
_held: dict[object, list[Held]] = {}


def shared(
    kind: object,
    config: object,
    dtype: ms.dtype,
    stored: Mapping[str, Weight],
    build: Callable[[], M],
) -> M:
    """The loaded model that has this configuration and these weights, else a new one.

    `kind` tells apart what is built in different ways from the same.
    """
    held = _held[kind] = [each for each in _held.get(kind, ()) if each.model() is not None]
    for each in held:
        model: M | None = each.model()
        alike = (each.config, each.dtype) == (config, dtype)
        if model is not None and alike and same(each.stored, stored):
            return model
    model = build()
    held.append(Held(weakref.ref(model), config, dtype, stored))
    return model


def same(one: Mapping[str, Weight], other: Mapping[str, Weight]) -> bool:
    """Whether the weights are equal to the bit; different ones are told apart by the first."""
    return one.keys() == other.keys() and all(equal(key, one[key], other[key]) for key in one)


def equal(key: str, one: Weight, other: Weight) -> bool:
    if not (isinstance(one, StoredTensor) and isinstance(other, StoredTensor)):
        return False  # merged with a LoRA
    if one == other:
        return True  # the same file, mapped once
    if (one.dtype, shape(key, one), one.transposed) != (
        other.dtype,
        shape(key, other),
        other.transposed,
    ):
        return False
    alike = one.data() == other.data()
    one.forget()
    other.forget()
    return alike
