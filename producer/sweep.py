"""A sweep: one request for each combination of values, side by side in the end."""

import itertools
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from producer.grid import make_grid
from producer.request import Img2Img, Picture, Request, Text2Img
from storage.errors import InvalidSpec

#: Fields in the order in which they vary, the last one fastest: it has the columns.
AXES = ("model", "scheduler", "seed", "num_inference_steps", "strength", "guidance_scale")
#: More pictures than this are no sheet that anybody looks at.
MOST = 400
_SEEDS = 2**32

Point = Mapping[str, Any]


@dataclass(frozen=True)
class Sweep:
    """Values for some fields, and for the others what all pictures share."""

    #: Each field's values, in the order of AXES; those with several vary.
    values: Mapping[str, Sequence[Any]]
    #: Prompt, negative prompt, width …
    shared: Mapping[str, Any]
    image: Picture | None = None

    @property
    def points(self) -> list[Point]:
        """The combinations, row by row."""
        return [
            dict(zip(self.values, combination, strict=True))
            for combination in itertools.product(*self.values.values())
        ]

    @property
    def varying(self) -> list[str]:
        return [name for name, values in self.values.items() if len(values) > 1]

    @property
    def columns(self) -> int:
        return len(self.values[self.varying[-1]]) if self.varying else 1

    def requests(self) -> list[Request]:
        """A request for each point; raises InvalidSpec, naming the field."""
        if self.image is None:
            return [Text2Img(**self.shared, **point) for point in self.points]
        return [Img2Img(image=self.image, **self.shared, **point) for point in self.points]

    def name(self, point: Point) -> str:
        """A file name of its own for each point, without ending."""
        parts = [f"{name}-{_text(point[name])}" for name in self.varying]
        return "_".join(parts).replace("/", "-") or "picture"

    def caption(self, point: Point) -> str:
        return ", ".join(f"{name} {_text(point[name])}" for name in self.varying)

    def sheet(self, pictures: Sequence[Image.Image | None], side: int = 256) -> Image.Image:
        """The pictures in the order of the points, captioned; None is one that failed."""
        failed = Image.new("RGB", (side, side), "lightgray")
        captions = [
            self.caption(point) + (" (failed)" if picture is None else "")
            for point, picture in zip(self.points, pictures, strict=True)
        ]
        return make_grid([p or failed for p in pictures], captions, self.columns, side)


def make_sweep(
    values: Mapping[str, Sequence[Any]],
    shared: Mapping[str, Any],
    image: Picture | None = None,
) -> Sweep:
    """A sweep over the fields that have several values.

    A field without values is the model's own. A seed that is left open is drawn once, so that the
    pictures differ by what is swept alone. Raises InvalidSpec.
    """
    if image is None and values.get("strength"):
        raise InvalidSpec("strength: it says how far from a picture to go: give a picture too")
    found = {name: list(values[name]) for name in AXES if values.get(name)}
    for name, listed in found.items():
        repeated = [value for value in listed if listed.count(value) > 1]
        if repeated:
            raise InvalidSpec(f"{name}: {_text(repeated[0])} stands in the list twice")
    if math.prod(map(len, found.values())) > MOST:
        counts = " x ".join(f"{len(listed)} {name}" for name, listed in found.items())
        raise InvalidSpec(f"a sweep has at most {MOST} pictures, not {counts}")
    if "seed" not in found:
        shared = {**shared, "seed": secrets.randbelow(_SEEDS)}
    return Sweep(found, shared, image)


def _text(value: Any) -> str:
    return str(value).removesuffix(".0")
