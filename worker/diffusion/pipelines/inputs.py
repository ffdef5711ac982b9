"""What every family checks before it touches the device. All raise PipelineInputError."""

import math
from typing import Any

import numpy as np
from PIL import Image

from worker.diffusion.errors import PipelineInputError
from worker.diffusion.image import round_down


def check_text(name: str, text: Any) -> None:
    if not isinstance(text, str):
        raise PipelineInputError(f"{name} is {text!r}; it must be a text.")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise PipelineInputError(f"{name} holds half a character (a lone surrogate).")


def check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise PipelineInputError(f"{name} is {value!r}; it must be a number.")


def result_size(
    image: Any,
    width: int | None,
    height: int | None,
    *,
    default: tuple[int, int],
    scale: int,
    channels: int,
    multiple: int | None = None,
) -> tuple[int, int]:
    """Width and height of the result: as asked for, else the image's own, else the default.

    `scale` is the number of pixels for each position of a latent, `channels` the latent's. Sides
    are multiples of `multiple`, by default the scale.
    """
    multiple = multiple or scale
    for name, side in (("width", width), ("height", height)):
        if side is not None and (not isinstance(side, int) or side < multiple or side % multiple):
            raise PipelineInputError(
                f"{name} is {side!r}; it must be a multiple of {multiple} above 0."
            )
    own = default if image is None else own_size(image, scale, channels, multiple)
    size = width or own[0], height or own[1]
    if not all(size):
        raise PipelineInputError(
            f"image is {image.width}x{image.height}; "
            f"each side must have at least {multiple} pixels."
        )
    if isinstance(image, np.ndarray) and size != own:
        raise PipelineInputError(
            f"width x height is {size[0]}x{size[1]}, but the latent is one of {own[0]}x{own[1]}; "
            "decode it first to resize it."
        )
    return size


def own_size(image: Any, scale: int, channels: int, multiple: int) -> tuple[int, int]:
    """A picture's width and height rounded down to multiples of `multiple`, or a latent's."""
    if isinstance(image, Image.Image):
        return round_down(image.width, multiple), round_down(image.height, multiple)
    if not isinstance(image, np.ndarray):
        raise PipelineInputError(
            f"image is a {type(image).__name__}; it must be a PIL image or a latent array."
        )
    if image.ndim != 3 or image.shape[0] != channels or 0 in image.shape:
        raise PipelineInputError(
            f"image is an array of shape {list(image.shape)}; a latent has the shape "
            f"[{channels}, height / {scale}, width / {scale}], and a picture must be a PIL image."
        )
    width, height = image.shape[2] * scale, image.shape[1] * scale
    if width % multiple or height % multiple:
        raise PipelineInputError(
            f"image is a latent of {width}x{height} pixels; "
            f"each side must be a multiple of {multiple}."
        )
    return width, height
