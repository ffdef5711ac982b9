"""Specs for tests, as short as they can be."""

from typing import Any

from storage.spec import Img2Img, Spec, Text2Img


def a_spec(prompt: str = "a red square", **around: Any) -> Spec:
    return Spec(steps=(Text2Img(model="demo", prompt=prompt),), **around)


def a_chain(length: int = 3) -> Spec:
    first = Text2Img(model="demo", prompt="a red square")
    later = Img2Img(model="demo", prompt="then blue", strength=0.5)
    return Spec(steps=(first, *[later] * (length - 1)))
