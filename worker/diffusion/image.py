"""Pictures to pixels and back."""

import numpy as np
from PIL import Image


def to_pixels(
    image: Image.Image,
    width: int,
    height: int,
    resample: Image.Resampling = Image.Resampling.LANCZOS,
    reducing_gap: float | None = None,
) -> np.ndarray:
    """Pixels (3, height, width) in -1..1 of a picture resized to that size."""
    resized = to_rgb(image).resize((width, height), resample, reducing_gap=reducing_gap)
    scaled = np.asarray(resized, dtype=np.float32) / np.float32(255)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)) * 2 - 1


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture in RGB; 16-bit grey keeps its high byte, which Pillow would clip."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def round_down(side: int, multiple: int) -> int:
    """The largest multiple that is not above `side`."""
    return side - side % multiple


def to_array(pixels: np.ndarray) -> np.ndarray:
    """An array (height, width, 3) in 0..1, float32, from decoded pixels (3, height, width).

    Raises FloatingPointError where a pixel is not finite: a picture would hide that.
    """
    if not np.isfinite(pixels).all():
        raise FloatingPointError("the decoded picture holds values that are not finite.")
    return np.clip(pixels / 2 + 0.5, 0, 1).transpose(1, 2, 0).astype(np.float32)


def to_picture(array: np.ndarray) -> Image.Image:
    """A picture from an array (height, width, 3) in 0..1."""
    return Image.fromarray((array * 255).round().astype(np.uint8))
