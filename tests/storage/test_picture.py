import io
import random
import struct
import zlib
from collections.abc import Callable

import pytest
from PIL import Image

from storage.errors import InvalidImage
from storage.picture import PictureInfo, check_picture, load_picture
from storage.settings import Settings

LIMIT = 1_000_000
RED = (200, 30, 40)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)  # type: ignore[arg-type]
    return out.getvalue()


def noise(size: tuple[int, int] = (64, 48)) -> Image.Image:
    data = random.Random(1).randbytes(size[0] * size[1] * 3)
    return Image.frombytes("RGB", size, data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_every_allowed_format_is_recognised_and_read(kind: str) -> None:
    data = encoded(Image.new("RGB", (40, 30), RED), kind)

    info = check_picture(data, LIMIT)
    picture = load_picture(data, LIMIT)

    assert (info.format, info.width, info.height) == (kind, 40, 30)
    assert (picture.mode, picture.size) == ("RGB", (40, 30))
    assert all(abs(a - b) < 4 for a, b in zip(picture.getpixel((5, 5)), RED, strict=True))


def frames(kind: str) -> bytes:
    first, second = Image.new("RGB", (16, 16), RED), Image.new("RGB", (16, 16), "blue")
    return encoded(first, kind, save_all=True, append_images=[second], duration=100)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
@pytest.mark.parametrize("ask", [check_picture, load_picture])
def test_a_moving_picture_is_refused(kind: str, ask: Callable[[bytes, int], object]) -> None:
    with pytest.raises(InvalidImage, match="2 frames: only a still picture"):
        ask(frames(kind), LIMIT)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels: nothing of it can be decoded."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"")


@pytest.mark.parametrize("ask", [check_picture, load_picture])
def test_a_picture_with_too_many_pixels_is_refused_by_its_header_alone(
    ask: Callable[[bytes, int], object],
) -> None:
    with pytest.raises(
        InvalidImage, match="10000x9000 is 90000000 pixels, at most 1000000 are allowed"
    ):
        ask(png_header(10_000, 9_000), LIMIT)
    with pytest.raises(InvalidImage, match="more than 178956970 pixels, at most 1000000"):
        ask(png_header(60_000, 60_000), LIMIT)


def test_the_limit_itself_is_allowed() -> None:
    data = encoded(Image.new("RGB", (100, 100)))
    assert check_picture(data, 10_000) == PictureInfo(
        format="PNG", width=100, height=100, mode="RGB"
    )
    with pytest.raises(InvalidImage, match="at most 9999"):
        check_picture(data, 9_999)


def test_the_highest_limit_that_settings_allow_is_the_one_that_holds() -> None:
    with pytest.raises(InvalidImage, match="broken or cut short"):
        check_picture(png_header(13_000, 13_000), 178_956_970)
    with pytest.raises(ValueError, match="less than or equal to 178956970"):
        Settings(max_image_pixels=178_956_971)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("ask", [check_picture, load_picture])
def test_a_picture_cut_short_is_refused(kind: str, ask: Callable[[bytes, int], object]) -> None:
    data = encoded(noise(), kind)
    with pytest.raises(InvalidImage, match=r"image: it is (broken|none of)"):
        ask(data[: len(data) // 2], LIMIT)


def test_a_picture_with_damaged_pixels_is_refused() -> None:
    data = bytearray(encoded(noise()))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(InvalidImage, match="broken"):
        check_picture(bytes(data), LIMIT)


@pytest.mark.parametrize(
    "data",
    [b"hello", b"%PDF-1.7", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\x00" * 5000],
    ids=["text", "pdf", "svg", "zeros"],
)
def test_what_is_no_picture_is_told_what_would_be(data: bytes) -> None:
    with pytest.raises(InvalidImage, match="none of PNG, JPEG, WebP, BMP, TIFF or a GIF"):
        check_picture(data, LIMIT)


def test_a_format_that_only_pillow_knows_is_refused() -> None:
    with pytest.raises(InvalidImage, match="none of PNG"):
        check_picture(encoded(noise(), "PPM"), LIMIT)


def test_an_empty_file_is_called_empty() -> None:
    with pytest.raises(InvalidImage, match="empty"):
        check_picture(b"", LIMIT)


def test_sixteen_bits_are_scaled_down_not_cut_off() -> None:
    deep = Image.new("I;16", (3, 1))
    for x, value in enumerate((0, 32_768, 65_535)):
        deep.putpixel((x, 0), value)

    picture = load_picture(encoded(deep), LIMIT)

    assert [picture.getpixel((x, 0)) for x in range(3)] == [(v, v, v) for v in (0, 128, 255)]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_samples_of_32_bits_are_refused(mode: str) -> None:
    with pytest.raises(InvalidImage, match="8 or 16 bits"):
        check_picture(encoded(Image.new(mode, (8, 8)), "TIFF"), LIMIT)


def test_cmyk_becomes_rgb() -> None:
    data = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    red, green, blue = load_picture(data, LIMIT).getpixel((8, 8))  # type: ignore[misc]
    assert check_picture(data, LIMIT).mode == "CMYK"
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize(("mode", "value"), [("L", 90), ("1", 1), ("P", 0)])
def test_grey_black_and_white_and_palettes_become_rgb(mode: str, value: int) -> None:
    image = Image.new(mode, (4, 4), value)
    expected = image.convert("RGB").getpixel((0, 0))
    assert load_picture(encoded(image), LIMIT).getpixel((0, 0)) == expected


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_what_is_transparent_lets_white_through(kind: str) -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 128))
    picture = load_picture(encoded(image, kind, lossless=True), LIMIT)
    assert picture.getpixel((0, 0)) == (255, 255, 255)
    assert all(abs(v - 127) <= 1 for v in picture.getpixel((1, 0)))  # type: ignore[union-attr]


def test_a_palette_s_transparent_colour_lets_white_through() -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((1, 0), 1)
    picture = load_picture(encoded(image, "GIF", transparency=0), LIMIT)
    assert [picture.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (10, 20, 30)]


def test_grey_with_transparency_lets_white_through() -> None:
    picture = load_picture(encoded(Image.new("LA", (2, 2), (0, 0))), LIMIT)
    assert picture.getpixel((0, 0)) == (255, 255, 255)


def test_a_picture_that_lies_on_its_side_is_put_upright() -> None:
    image = Image.new("RGB", (40, 20), "black")
    image.paste(RED, (0, 0, 10, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn 90 degrees clockwise to see it upright

    data = encoded(image, "JPEG", exif=exif, quality=95)
    picture = load_picture(data, LIMIT)

    assert picture.size == (20, 40)
    assert picture.getpixel((10, 3))[0] > 150  # type: ignore[index]
    assert picture.getpixel((10, 35))[0] < 50  # type: ignore[index]
    assert check_picture(data, LIMIT).width == 20  # as it is seen
