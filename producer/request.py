"""What a caller asks for: a step of a spec, and the picture that it begins from."""

import io
import re
from os import PathLike
from pathlib import Path
from typing import Any, Required, TypedDict, Unpack

from PIL import Image

from storage import spec
from storage.errors import InvalidImage, InvalidSpec
from storage.objects import input_key
from storage.picture import EXTENSIONS, check_picture

#: A path, the file's bytes, a PIL image, or the key of an object that is in the bucket already.
Picture = str | PathLike[str] | bytes | Image.Image

#: Keys that latentmill gave out; any other text is a path.
_KEY = re.compile(r"inputs/[0-9a-f]{64}\.[a-z]+|jobs/[0-9a-z]{26}/[\w.-]+")


class StepValues(TypedDict, total=False):
    """The fields that both kinds of step take; defaults are diffusers' own."""

    model: Required[str]
    prompt: Required[str]
    negative_prompt: str
    num_inference_steps: int
    guidance_scale: float
    seed: int | None
    width: int | None
    height: int | None
    scheduler: str | dict[str, Any] | None


class Text2Img:
    """Ask for a picture from a prompt. Raises InvalidSpec, naming the field."""

    def __init__(self, **values: Unpack[StepValues]) -> None:
        self.step: spec.Step = spec.make_step(spec.Text2Img, **values)
        self.picture: Picture | None = None


class Img2Img:
    """Ask for a picture from a picture; in a chain, from the step before when `image` is None.

    Raises InvalidSpec, naming the field.
    """

    def __init__(
        self,
        *,
        image: Picture | None = None,
        strength: float = 0.8,
        **values: Unpack[StepValues],
    ) -> None:
        if image is not None and not isinstance(image, str | PathLike | bytes | Image.Image):
            raise InvalidSpec(
                f"image: a path, bytes, a PIL image or a key of the bucket, not"
                f" {type(image).__name__}"
            )
        is_key = isinstance(image, str) and _KEY.fullmatch(image)
        self.step: spec.Step = spec.make_step(
            spec.Img2Img, image=image if is_key else None, strength=strength, **values
        )
        self.picture = None if is_key else image


Request = Text2Img | Img2Img


def read_picture(picture: Picture, max_pixels: int) -> tuple[str, bytes, str]:
    """A checked picture: its key in the bucket, its bytes and their content type.

    Raises InvalidImage.
    """
    data, place = _bytes_of(picture, max_pixels)
    try:
        info = check_picture(data, max_pixels)
    except InvalidImage as error:
        raise InvalidImage(f"{place}{error}") from None
    kind = f"image/{info.format.lower()}"
    return input_key(data, EXTENSIONS[info.format]), data, kind


def _bytes_of(picture: Picture, max_pixels: int) -> tuple[bytes, str]:
    if isinstance(picture, bytes):
        return picture, ""
    if isinstance(picture, Image.Image):
        return _png(picture), ""
    path = Path(picture)
    most = max_pixels * _PIXEL_BYTES + _METADATA_BYTES
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        raise InvalidImage(f"image: there is no file {str(path)!r}") from None
    except IsADirectoryError:
        raise InvalidImage(f"image: {str(path)!r} is a folder, not a picture") from None
    except OSError as error:
        raise InvalidImage(f"image: {str(path)!r} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InvalidImage(f"image: {str(path)!r} is no path: {error}") from None
    if len(data) > most:
        raise InvalidImage(
            f"image: {str(path)!r} has more than {most} bytes: no picture of the"
            f" {max_pixels} pixels that are allowed is as large"
        )
    return data, f"{path}: "


def _png(image: Image.Image) -> bytes:
    mode = _STORED_AS.get(image.mode)
    if mode is None:
        raise InvalidImage(f"image: a PIL image of mode {image.mode}: convert it to RGB first")
    out = io.BytesIO()
    try:
        (image if mode == image.mode else image.convert(mode)).save(out, "PNG")
    except (OSError, SyntaxError, ValueError) as error:  # its file may be broken, and read only now
        raise InvalidImage(f"image: the PIL image cannot be used: {error}") from None
    return out.getvalue()


#: 16 bits in each of four channels, uncompressed, and room for profiles and thumbnails.
_PIXEL_BYTES, _METADATA_BYTES = 8, 16 * 2**20
#: The mode in which a PIL image is stored as PNG. The others have no one way to be seen.
_STORED_AS = {
    **{mode: mode for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")},
    **dict.fromkeys(("CMYK", "HSV", "RGBX", "YCbCr"), "RGB"),
    "La": "LA",
    "PA": "RGBA",
    "RGBa": "RGBA",
}
