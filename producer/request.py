"""What a caller asks for: a step of a spec, and the picture that it begins from."""

import io
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, Required, TypedDict, Unpack

from PIL import Image, ImageOps

from storage import spec
from storage.errors import InvalidImage, InvalidSpec
from storage.inputs import Input, check_input, is_url
from storage.picture import most_bytes

#: A path, the file's bytes, an open file, a PIL image, the key of an object that is in the bucket
#: already, or an `https://…` or `s3://bucket/key` URL.
Picture = str | PathLike[str] | bytes | BinaryIO | Image.Image

#: Keys that latentmill gave out; any other text is a path.
_KEY = re.compile(r"inputs/[0-9a-f]{64}\.[a-z]+|jobs/[0-9a-z]{26}/[\w.-]+")


class StepValues(TypedDict, total=False):
    """The fields that both kinds of step take; what is left open is the model's own."""

    model: Required[str]
    prompt: Required[str]
    negative_prompt: str
    num_inference_steps: int | None
    guidance_scale: float | None
    seed: int | None
    width: int | None
    height: int | None
    scheduler: str | dict[str, Any] | None
    prompt_weighting: bool
    #: Each `{"path": …, "weight": …}`, the path in the workers' folder for LoRAs.
    loras: Sequence[Mapping[str, Any]]
    aesthetic_score: float | None
    negative_aesthetic_score: float | None
    denoising_end: float | None
    prior_guidance_scale: float | None
    prior_num_inference_steps: int | None


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
        strength: float | None = None,
        denoising_start: float | None = None,
        **values: Unpack[StepValues],
    ) -> None:
        is_known = isinstance(image, str | PathLike | bytes | Image.Image) or hasattr(image, "read")
        if image is not None and not is_known:
            raise InvalidSpec(
                "image: a path, bytes, an open file, a PIL image, a URL or a key of the bucket, not"
                f" {type(image).__name__}"
            )
        # What others can find too is the spec's; the rest has to be brought to the bucket.
        is_named = isinstance(image, str) and (is_url(image) or _KEY.fullmatch(image))
        self.step: spec.Step = spec.make_step(
            spec.Img2Img,
            image=image if is_named else None,
            strength=strength,
            denoising_start=denoising_start,
            **values,
        )
        self.picture = None if is_named else image


Request = Text2Img | Img2Img


def read_picture(picture: Picture, max_pixels: int) -> Input:
    """A checked picture, from wherever this process has it. Raises InvalidImage."""
    most, place = most_bytes(max_pixels), ""
    if isinstance(picture, bytes):
        data = picture
    elif isinstance(picture, Image.Image):
        data = _png(picture)
    elif isinstance(picture, str | PathLike):
        data, place = _file(Path(picture), most), f"{picture}: "
    else:
        data = _open_file(picture, most)
    if len(data) > most:
        raise InvalidImage(
            f"{place}image: it has more than {most} bytes: no picture of the"
            f" {max_pixels} pixels that are allowed is as large"
        )
    try:
        return check_input(data, max_pixels)
    except InvalidImage as error:
        raise InvalidImage(f"{place}{error}") from None


def _file(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most + 1)
    except FileNotFoundError:
        raise InvalidImage(f"image: there is no file {str(path)!r}") from None
    except IsADirectoryError:
        raise InvalidImage(f"image: {str(path)!r} is a folder, not a picture") from None
    except OSError as error:
        raise InvalidImage(f"image: {str(path)!r} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InvalidImage(f"image: {str(path)!r} is no path: {error}") from None


def _open_file(file: BinaryIO, most: int) -> bytes:
    try:
        data = file.read(most + 1)
    except (OSError, ValueError) as error:
        raise InvalidImage(f"image: the open file cannot be read: {error}") from None
    if not isinstance(data, bytes):
        raise InvalidImage("image: the open file gives text: open it in binary mode, 'rb'")
    return data


def _png(image: Image.Image) -> bytes:
    mode = _STORED_AS.get(image.mode)
    if mode is None:
        raise InvalidImage(f"image: a PIL image of mode {image.mode}: convert it to RGB first")
    out = io.BytesIO()
    try:
        upright = ImageOps.exif_transpose(image)
        (upright if mode == image.mode else upright.convert(mode)).save(out, "PNG")
    except (OSError, SyntaxError, ValueError) as error:  # its file may be broken, and read only now
        raise InvalidImage(f"image: the PIL image cannot be used: {error}") from None
    return out.getvalue()


#: The mode in which a PIL image is stored as PNG. The others have no one way to be seen.
_STORED_AS = {
    **{mode: mode for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")},
    **dict.fromkeys(("CMYK", "HSV", "RGBX", "YCbCr"), "RGB"),
    "La": "LA",
    "PA": "RGBA",
    "RGBa": "RGBA",
}
