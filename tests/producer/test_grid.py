"""Pictures side by side."""

import io

from PIL import Image

from producer.grid import make_gif, make_grid


def test_pictures_stand_in_rows_each_above_its_caption() -> None:
    colors = ["red", "lime", "blue"]
    pictures = [Image.new("RGB", (32, 16), color) for color in colors]
    grid = make_grid(pictures, ["one", "a caption " * 5, "three"], columns=2, side=64)
    assert grid.width == 2 * 64 + 3 * 12
    found = grid.getcolors(10**6)
    assert found is not None
    counts = {color: count for count, color in found}
    # Fitted into the square: as wide as it, half as high.
    assert [counts[c] for c in ((255, 0, 0), (0, 255, 0), (0, 0, 255))] == [64 * 32] * 3
    assert grid.getpixel((12 + 32, 12 + 63)) == (255, 0, 0)
    assert grid.getpixel((12 + 64 + 12 + 32, 12 + 63)) == (0, 255, 0)
    below = grid.crop((12, 12 + 64, 12 + 64, 12 + 64 + 26)).convert("L")
    assert below.getextrema()[0] < 100  # letters


def lying(color: str) -> Image.Image:
    """A picture of 20x40, stored on its side."""
    image = Image.new("RGB", (40, 20), color)
    image.getexif()[0x0112] = 6
    return image


def test_a_picture_on_its_side_is_shown_upright() -> None:
    grid = make_grid([lying("red")], ["a"], columns=1, side=80)
    counts = {color: count for count, color in grid.getcolors(10**6) or []}
    assert counts[(255, 0, 0)] == 40 * 80
    assert grid.getpixel((12 + 40, 12 + 2)) == (255, 0, 0)
    with Image.open(io.BytesIO(make_gif([lying("red")], side=80))) as moving:
        assert moving.size == (40, 80)


def test_pictures_follow_each_other_for_ever_in_the_size_of_the_first() -> None:
    pictures = [Image.new("RGB", (64, 64), "red"), Image.new("RGB", (128, 64), "blue")]
    with Image.open(io.BytesIO(make_gif(pictures, side=32, seconds=0.5))) as moving:
        assert (moving.n_frames, moving.size, moving.info["loop"]) == (2, (32, 32), 0)
        assert moving.info["duration"] == 500
        assert moving.convert("RGB").getpixel((16, 2)) == (255, 0, 0)
        moving.seek(1)
        second = moving.convert("RGB")
        assert second.getpixel((16, 16)) == (0, 0, 255)
        assert second.getpixel((16, 2)) == (255, 255, 255)
