"""Pictures side by side."""

from PIL import Image

from producer.grid import make_grid


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
