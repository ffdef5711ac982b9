"""Pictures side by side, each with its caption, or one after another."""

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont, ImageOps

_MARGIN = 12
_FONT_SIZE = 15
_LINE = 20  # pixels from one line of a caption to the next


def make_grid(
    pictures: Sequence[Image.Image], captions: Sequence[str], columns: int, side: int = 256
) -> Image.Image:
    """Rows of pictures, each fitted into a square of `side` pixels above its caption."""
    font = ImageFont.load_default(_FONT_SIZE)
    texts = [_wrapped(caption, font, side) for caption in captions]
    heights = [
        side + _LINE * max(len(lines) for lines in texts[first : first + columns])
        for first in range(0, len(texts), columns)
    ]
    width = columns * (side + _MARGIN) + _MARGIN
    sheet = Image.new("RGB", (width, sum(heights) + (2 * len(heights) + 1) * _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (picture, lines) in enumerate(zip(pictures, texts, strict=True)):
        row, column = divmod(index, columns)
        left = _MARGIN + column * (side + _MARGIN)
        top = _MARGIN + sum(heights[:row]) + 2 * row * _MARGIN
        # What is enlarged shows its pixels.
        smooth = max(picture.size) > side
        method = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
        upright = ImageOps.exif_transpose(picture).convert("RGB")
        fitted = ImageOps.contain(upright, (side, side), method)
        sheet.paste(fitted, (left + (side - fitted.width) // 2, top + side - fitted.height))
        below = top + side + _MARGIN // 2
        for number, line in enumerate(lines):
            draw.text((left, below + number * _LINE), line, "black", font)
    return sheet


def make_gif(pictures: Sequence[Image.Image], side: int = 256, seconds: float = 0.9) -> bytes:
    """A GIF that shows each picture for so long, over and over; its sides are at most `side`.

    A picture of another shape than the first stands on white.
    """
    uprights = [ImageOps.exif_transpose(picture).convert("RGB") for picture in pictures]
    size = ImageOps.contain(uprights[0], (side, side)).size
    frames = []
    for picture in uprights:
        smooth = picture.width > size[0] or picture.height > size[1]
        method = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
        frames.append(ImageOps.pad(picture, size, method, "white"))
    out = io.BytesIO()
    frames[0].save(
        out, "GIF", save_all=True, append_images=frames[1:], duration=round(seconds * 1000), loop=0
    )
    return out.getvalue()


def _wrapped(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> list[str]:
    """The caption in lines no wider than `width`, broken between words."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
