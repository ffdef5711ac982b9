"""The demo's pictures: emoji from a free font on plain grounds, in four styles."""

from __future__ import annotations

import argparse
from pathlib import Path

import emoji
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
SIZE = 64
FLIPPED = 0.15
STYLES = ("plain", "pixel art", "pencil sketch", "comic")

# Objects that a child tells apart at 64 pixels. A run may train on the first of them only.
EMOJI = (
    "🍎🍐🍊🍋🍌🍉🍇🍓🍍🍅🍆🥑🥦🌽🥕🥐🥨🍔🍟🍕"
    "🌭🍿🍩🎂🍦🍺🐶🐱🐭🐰🦊🐻🐼🐯🦁🐮🐷🐸🐵🐧"
    "🐤🦉🦄🐝🦋🐌🐞🐢🐙🦀🐠🐳🐘🌵🎄🌴🍀🍁🍄🌻"
    "🌹🌷🚗🚕🍒🥝🍞🧀🌮🍳🍙🍰🍭🐬🐓🚑🚂🚁⛵🎾"
    "🏈🎺🥁🎩👟👜🔔🌙👽🚒🚜🚀⚽🎸🎨🔥🌈🥭🍑🥥"
    "🥔🥗🍣🍫🍼🧊🦇🐿🦃🦆🦚🦜🐊🦕🦖🦞🦐🦍🐑🐐"
    "🐈🦨🦓🐆🦫🍂💐🌺🌱🌋🏠🏰⛺🏝🚌🚓🛵🚢⛽🛑"
    "✈⏰⌚🧭☎📷📺📻💻🔦📕✏✂🔨🪓🧲🪜🔭💊🚪"
    "🪑🧸🎀🏆🎯🎳🎮🎲♟🧩🎤🎧🪁🥊🏓🎣🛹☂☀🌊"
    "🌀🕶👗🧢🧣💄🧶💰💳🤡👹❤👁🐾✊🎅🤖👻⭐👑"
    "🔑🧁🎁🎈🚲💡💀💎"
)

GROUNDS = tuple(
    (red, green, blue)
    for red, green, blue in (
        (255, 255, 255),
        (255, 214, 214),
        (255, 240, 196),
        (212, 242, 208),
        (204, 230, 255),
        (228, 214, 250),
    )
)


def name_of(character: str) -> str:
    """The Unicode CLDR short name of an emoji, such as "red apple"."""
    return (
        emoji.demojize(character, delimiters=("", "")).replace("_", " ").replace("-", " ").lower()
    )


def names() -> list[str]:
    """The names of all objects, in their fixed order."""
    return [name_of(character) for character in EMOJI]


def prompt_of(name: str, style: str) -> str:
    """The prompt of a picture: the bare name for the plain style, else "name, style style"."""
    return name if style == "plain" else f"{name}, {style} style"


def prompts() -> list[str]:
    """Every prompt of the training set; index name * 4 + style."""
    return [prompt_of(name, style) for name in names() for style in STYLES]


def glyph(character: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """The emoji cut to its own edges and centred in a transparent square of 128 pixels."""
    canvas = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(canvas).text((8, 8), character, font=font, embedded_color=True)
    cut = canvas.crop(canvas.getbbox())
    cut.thumbnail((128, 128), Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (128, 128))
    square.paste(cut, ((128 - cut.width) // 2, (128 - cut.height) // 2))
    return square


def glyphs() -> list[Image.Image]:
    """One glyph a name."""
    # The font holds bitmaps of one size only, which FreeType calls 109.
    font = ImageFont.truetype(str(FONT), 109)
    return [glyph(character, font) for character in EMOJI]


def place(picture: Image.Image, scale: float, shift: tuple[int, int], flip: bool) -> Image.Image:
    """A glyph on a transparent square of 64 pixels."""
    if flip:
        picture = ImageOps.mirror(picture)
    side = round(SIZE * scale)
    small = picture.resize((side, side), Image.Resampling.LANCZOS)
    layer = Image.new("RGBA", (SIZE, SIZE))
    layer.paste(small, ((SIZE - side) // 2 + shift[0], (SIZE - side) // 2 + shift[1]))
    return layer


def pixel_art(layer: Image.Image, ground: tuple[int, int, int]) -> Image.Image:
    """16x16 blocks of few, strong colours."""
    blocks = flatten(layer, ground).resize((16, 16), Image.Resampling.BOX)
    values = np.asarray(blocks, np.float32)
    return Image.fromarray((np.round(values / 51) * 51).astype(np.uint8)).resize(
        (SIZE, SIZE), Image.Resampling.NEAREST
    )


def pencil_sketch(layer: Image.Image) -> Image.Image:
    """Grey lines and light shade on paper: a colour dodge with the blurred negative."""
    grey = flatten(layer, (255, 255, 255)).convert("L")
    values = np.asarray(grey, np.float32)
    blurred = np.asarray(grey.filter(ImageFilter.GaussianBlur(2.5)), np.float32)
    lines = np.minimum(1.0, values / np.maximum(blurred, 1.0)) ** 2.5
    shade = 0.7 + 0.3 * values / 255
    paper = np.uint8(np.clip(245 * lines * shade, 0, 255))
    return Image.merge("RGB", [Image.fromarray(paper)] * 3)


def comic(layer: Image.Image, ground: tuple[int, int, int]) -> Image.Image:
    """Flat loud colours inside a thick black line, on a ground of printed dots."""
    alpha = layer.getchannel("A").point(lambda value: 255 if value > 100 else 0)
    line = np.asarray(alpha.filter(ImageFilter.MaxFilter(5)), bool) & ~np.asarray(
        alpha.filter(ImageFilter.MinFilter(3)), bool
    )
    values = np.asarray(flatten(layer, ground), np.float32)
    mean = values.mean(axis=2, keepdims=True)
    flat = np.clip(np.round((mean + 1.6 * (values - mean)) / 85) * 85, 0, 255)
    loud = np.clip(255 - 2.6 * (255 - np.float32(ground)), 0, 255)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] % 8
    dots = (rows - 3.5) ** 2 + (columns - 3.5) ** 2 < 7
    backdrop = np.where(dots[..., None], loud * 0.62, loud)
    drawn = np.where(np.asarray(alpha, bool)[..., None], flat, backdrop)
    return Image.fromarray(np.uint8(np.where(line[..., None], 0, drawn)))


def flatten(layer: Image.Image, ground: tuple[int, int, int]) -> Image.Image:
    """The layer on a ground of one colour."""
    picture = Image.new("RGB", (SIZE, SIZE), ground)
    picture.paste(layer, mask=layer)
    return picture


def render(
    picture: Image.Image,
    style: str,
    ground: tuple[int, int, int] = GROUNDS[0],
    scale: float = 0.86,
    shift: tuple[int, int] = (0, 0),
    flip: bool = False,
) -> Image.Image:
    """A glyph as a 64x64 RGB picture in one style."""
    layer = place(picture, scale, shift, flip)
    if style == "pixel art":
        return pixel_art(layer, ground)
    if style == "pencil sketch":
        return pencil_sketch(layer)
    if style == "comic":
        return comic(layer, ground)
    return flatten(layer, ground)


def dataset(views: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random views of every name in every style.

    Pictures uint8 (n, 64, 64, 3) and their prompts' indices int64 (n,), n = names * 4 * views.
    """
    rng = np.random.default_rng(seed)
    pictures, indices = [], []
    for number, picture in enumerate(glyphs()):
        for _ in range(views):
            for kind, style in enumerate(STYLES):
                drawn = render(
                    picture,
                    style,
                    GROUNDS[rng.integers(len(GROUNDS))],
                    float(rng.uniform(0.82, 0.9)),
                    (int(rng.integers(-1, 2)), int(rng.integers(-1, 2))),
                    bool(rng.random() < FLIPPED),
                )
                pictures.append(np.asarray(drawn))
                indices.append(number * len(STYLES) + kind)
    return np.stack(pictures), np.array(indices)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="where the pictures go (.npz)")
    parser.add_argument("--views", type=int, default=24)
    arguments = parser.parse_args()
    pictures, indices = dataset(arguments.views)
    np.savez(arguments.file, pictures=pictures, indices=indices)
    print(f"{len(names())} names, {len(pictures)} pictures")


if __name__ == "__main__":
    main()
