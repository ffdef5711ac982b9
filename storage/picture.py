"""The one check of an input picture, and its way to plain RGB."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from storage.errors import InvalidImage
from storage.settings import PILLOW_LIMIT

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
_ALLOWED = "PNG, JPEG, WebP, BMP, TIFF or a GIF of one frame"
#: File name endings by Pillow's name of the format.
EXTENSIONS = {
    "PNG": "png", "JPEG": "jpg", "WEBP": "webp", "BMP": "bmp", "TIFF": "tif", "GIF": "gif",
}  # fmt: skip
#: EXIF orientations that turn a picture by a quarter.
_LYING = (5, 6, 7, 8)
#: 16 bits in each of four channels, uncompressed, and room for profiles and thumbnails.
_PIXEL_BYTES, _METADATA_BYTES = 8, 16 * 2**20


def most_bytes(max_pixels: int) -> int:
    """No file of a picture with so many pixels is larger."""
    return max_pixels * _PIXEL_BYTES + _METADATA_BYTES


@dataclass(frozen=True, kw_only=True)
class PictureInfo:
    """What a picture's header says; width and height in pixels as it is seen, upright."""

    format: str
    width: int
    height: int
    mode: str


def check_picture(data: bytes | BinaryIO, max_pixels: int) -> PictureInfo:
    """Read the header, refuse what is too large, then decode it all; raises InvalidImage.

    An open file is read as it is needed, and left open.
    """
    with _opened(data, max_pixels) as image:
        width, height = image.size
        if image.getexif().get(ExifTags.Base.Orientation) in _LYING:
            width, height = height, width
        return PictureInfo(format=str(image.format), width=width, height=height, mode=image.mode)


def load_picture(data: bytes, max_pixels: int) -> Image.Image:
    """A picture as RGB, upright, transparency laid over white; raises InvalidImage."""
    with _opened(data, max_pixels) as image:
        upright = ImageOps.exif_transpose(image)
        return _rgb(upright)


@contextmanager
def _opened(data: bytes | BinaryIO, max_pixels: int) -> Iterator[Image.Image]:
    """The decoded picture, once its header has been found acceptable."""
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    if not file.seek(0, io.SEEK_END):
        raise InvalidImage("image: it is empty (0 bytes)")
    file.seek(0)
    with warnings.catch_warnings():
        # Pillow warns from half its limit on; ours is the one that holds below it.
        warnings.simplefilter("ignore")
        try:
            image = Image.open(file, formats=FORMATS)
        except Image.DecompressionBombError:
            raise InvalidImage(
                f"image: it has more than {PILLOW_LIMIT} pixels, at most {max_pixels} are allowed"
            ) from None
        except UnidentifiedImageError:
            raise InvalidImage(f"image: it is none of {_ALLOWED}") from None
        except Exception as error:  # Pillow's decoders raise many kinds
            raise InvalidImage(f"image: it is broken: {error}") from None
        with image:
            if image.mode in ("I", "F"):
                raise InvalidImage("image: its samples are not of 8 or 16 bits, unsigned")
            pixels = image.width * image.height
            if pixels > max_pixels:
                raise InvalidImage(
                    f"image: {image.width}x{image.height} is {pixels} pixels,"
                    f" at most {max_pixels} are allowed"
                )
            try:
                frames = getattr(image, "n_frames", 1)
                image.load()
            except Exception as error:
                raise InvalidImage(f"image: it is broken or cut short: {error}") from None
            if frames > 1:
                raise InvalidImage(
                    f"image: it has {frames} frames: only a still picture can be used"
                )
            yield image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # By table: convert() cuts values off at 255 in some versions of Pillow.
        return image.convert("I").point([v >> 8 for v in range(65536)], "L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")
