"""A small dataset to try `latentmill batch` with: the bundled samples, turned and on other grounds.

`python demo/dataset.py FOLDER` makes a folder of pictures with their prompts beside them, and
`FOLDER/list.csv`, a table of the same with three rows that cannot become jobs.
"""

import argparse
import csv
from pathlib import Path

from PIL import Image, ImageChops, ImageOps

SAMPLES = Path(__file__).resolve().parent.parent / "producer" / "samples"
GROUNDS = {"plain": None, "rose": (255, 214, 214), "mint": (212, 242, 208), "sky": (204, 230, 255)}


def variants(sample: Image.Image) -> dict[str, Image.Image]:
    """The picture on each ground, as it is and mirrored."""
    found = {}
    ground = Image.new("RGB", sample.size, sample.getpixel((0, 0)))
    mask = ImageChops.difference(sample, ground).convert("L").point(lambda value: 255 * (value > 8))
    for name, color in GROUNDS.items():
        picture = sample
        if color is not None:
            picture = Image.new("RGB", sample.size, color)
            picture.paste(sample, mask=mask)
        found[name] = picture
        found[f"{name}-mirrored"] = ImageOps.mirror(picture)
    return found


def make(folder: Path) -> int:
    """Write the dataset; says how many pictures it has."""
    lines: list[tuple[str, str]] = []
    for file in sorted(SAMPLES.glob("*.png")):
        prompt = file.stem.replace("-", " ")
        for name, picture in variants(Image.open(file).convert("RGB")).items():
            path = folder / "pictures" / file.stem / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
            path.with_suffix(".txt").write_text(prompt)
            lines.append((path.relative_to(folder).as_posix(), prompt))
    broken = folder / "pictures" / "broken.png"
    broken.write_bytes(broken.with_name("red-apple").joinpath("plain.png").read_bytes()[:100])
    bad = [("pictures/none.png", "red apple"), (lines[0][0], ""), ("pictures/broken.png", "red")]
    with (folder / "list.csv").open("w", newline="") as out:
        csv.writer(out).writerows([("file_name", "prompt"), *lines, *bad])
    return len(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    print(f"{make(folder)} pictures and list.csv in {folder}")
