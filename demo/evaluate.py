"""Measure a demo checkpoint: does it draw what the prompt names, in the style it names?

A picture's features are its 16x16 thumbnail (768 numbers in 0..1) and four statistics that tell the
styles apart, weighted to count as much as a thumbnail: how much of the change between neighbouring
pixels falls on the edges of 4x4 blocks (12 times), mean saturation, the share of nearly black
pixels, and the mean change over 4 pixels, half the period of the comic dots (40 times each). The
nearest neighbour among the training pictures (every name, style and ground, both directions;
Euclidean distance) says which name and which style a picture shows.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from data import GROUNDS, STYLES, glyphs, prompts, render
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from PIL import Image

PLAIN, PIXEL, COMIC = STYLES.index("plain"), STYLES.index("pixel art"), STYLES.index("comic")


def features(pictures: np.ndarray) -> np.ndarray:
    """Float pictures (n, 64, 64, 3) in 0..1 to features (n, 772)."""
    n = len(pictures)
    blocks = pictures.reshape(n, 16, 4, 16, 4, 3)
    thumbnail = blocks.mean(axis=(2, 4)).reshape(n, -1)
    steps = np.abs(pictures[:, :, 1:] - pictures[:, :, :-1]).mean(axis=(1, 3))
    steps = steps + np.abs(pictures[:, 1:] - pictures[:, :-1]).mean(axis=(2, 3))
    between = steps[:, 3::4].mean(axis=1)
    blocky = between / (between + np.delete(steps, np.s_[3::4], axis=1).mean(axis=1) + 1e-6)
    saturation = (pictures.max(axis=3) - pictures.min(axis=3)).mean(axis=(1, 2))
    dark = (pictures.max(axis=3) < 0.25).mean(axis=(1, 2))
    dots = np.abs(pictures[:, 4:] - pictures[:, :-4]).mean(axis=(1, 2, 3))
    statistics = np.stack([12 * blocky, 40 * saturation, 40 * dark, 40 * dots], axis=1)
    return np.concatenate([thumbnail, statistics], axis=1).astype(np.float32)


class Judge:
    """Nearest neighbours among the training pictures."""

    def __init__(self, count: int) -> None:
        pictures, self.names, self.styles = [], [], []
        for number, glyph in enumerate(glyphs()[:count]):
            for kind, style in enumerate(STYLES):
                for ground in GROUNDS:
                    for flip in (False, True):
                        drawn = render(glyph, style, ground, flip=flip)
                        pictures.append(np.asarray(drawn, np.float32) / 255)
                        self.names.append(number)
                        self.styles.append(kind)
        self.known = features(np.stack(pictures))

    def look(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The names' and the styles' numbers of pictures."""
        nearest = []
        for one in features(pictures):
            nearest.append(int(((self.known - one) ** 2).sum(axis=1).argmin()))
        return np.array(self.names)[nearest], np.array(self.styles)[nearest]

    def shares(
        self, pictures: np.ndarray, names: np.ndarray, styles: np.ndarray
    ) -> tuple[float, float]:
        """The shares of pictures with the right name and with the right style."""
        seen_names, seen_styles = self.look(pictures)
        return float((seen_names == names).mean()), float((seen_styles == styles).mean())


def in_parts(pipe, texts: list[str], *, seed: int = 0, image=None, **options) -> np.ndarray:
    """Run a pipeline on many prompts, 32 at a time; with latents when output_type asks for them."""
    options = {"num_inference_steps": 20, "guidance_scale": 4.0, "output_type": "np", **options}
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for i in range(0, len(texts), 32):
        given = {} if image is None else {"image": image[i : i + 32]}
        out = pipe(texts[i : i + 32], generator=generator, **given, **options).images
        parts.append(torch.as_tensor(out))
    return torch.cat(parts).numpy()


def sheet(path: Path, pictures: np.ndarray, columns: int = 16) -> None:
    """Pictures side by side, row by row."""
    rows = [
        np.concatenate(list(pictures[i : i + columns]), axis=1)
        for i in range(0, len(pictures) - columns + 1, columns)
    ]
    Image.fromarray(np.uint8(np.concatenate(rows) * 255)).save(path)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over pictures of the root mean square difference."""
    return float(np.sqrt(((a - b) ** 2).mean(axis=(1, 2, 3))).mean())


def measure(folder: Path, count: int, pictures_to: Path | None, quick: bool) -> dict[str, object]:
    """All figures of a checkpoint."""
    text2img = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    img2img = StableDiffusionImg2ImgPipeline(**text2img.components, requires_safety_checker=False)
    for pipe in (text2img, img2img):
        pipe.set_progress_bar_config(disable=True)
    judge, texts, rng = Judge(count), prompts(), np.random.default_rng(7)
    figures: dict[str, object] = {}

    def show(name: str, pictures: np.ndarray) -> None:
        if pictures_to:
            sheet(pictures_to / f"{name}.png", pictures[:64])

    drawn = rng.permutation(count * len(STYLES))[: 64 if quick else 200]
    names, styles = drawn // len(STYLES), drawn % len(STYLES)
    made = in_parts(text2img, [texts[i] for i in drawn])
    show("text2img", made)
    name, style = judge.shares(made, names, styles)
    figures["text2img"] = {"prompts": len(drawn), "name": name, "style": style}
    print(figures, flush=True)
    if quick:
        return figures

    inputs_of = rng.permutation(count)[:50]
    glyph = glyphs()
    grounds = rng.integers(len(GROUNDS), size=len(inputs_of))
    plain = [render(glyph[i], "plain", GROUNDS[g]) for i, g in zip(inputs_of, grounds, strict=True)]
    before = np.stack([np.asarray(x, np.float32) / 255 for x in plain])
    same = [texts[i * len(STYLES)] for i in inputs_of]
    rise = {}
    for strength in (0.2, 0.4, 0.6, 0.8, 1.0):
        made = in_parts(img2img, same, image=plain, strength=strength)
        rise[str(strength)] = round(distance(made, before), 4)
    figures["img2img_distance"] = rise
    print(figures, flush=True)

    wanted = 1 + np.arange(2 * len(inputs_of)) % 3
    twice = np.concatenate([inputs_of, inputs_of])
    asked = [texts[i * len(STYLES) + k] for i, k in zip(twice, wanted, strict=True)]
    restyled = {}
    for scale in (4.0, 7.5):
        made = in_parts(img2img, asked, image=plain + plain, strength=0.5, guidance_scale=scale)
        show(f"restyle-{scale}", made)
        name, style = judge.shares(made, twice, wanted)
        restyled[str(scale)] = {"pictures": len(made), "name": name, "style": style}
    figures["restyle_at_0.5"] = restyled
    print(figures, flush=True)

    part = drawn[:64]
    freely = in_parts(text2img, [""] * len(part), guidance_scale=1.0)
    guided = {}
    for scale in (1.0, 4.0, 8.0):
        made = in_parts(text2img, [texts[i] for i in part], guidance_scale=scale)
        show(f"guidance-{scale:.0f}", made)
        name, style = judge.shares(made, part // len(STYLES), part % len(STYLES))
        guided[f"{scale:.0f}"] = {
            "name": name,
            "style": style,
            "distance_to_unprompted": round(distance(made, freely), 4),
        }
    figures["guidance"] = guided

    def step(kind: int, image: np.ndarray | None, output: str) -> np.ndarray:
        asked = [texts[i * len(STYLES) + kind] for i in inputs_of]
        if image is None:
            return in_parts(text2img, asked, output_type=output)
        options = {"image": torch.from_numpy(image), "strength": 0.6, "output_type": output}
        return in_parts(img2img, asked, seed=kind, **options)

    made = step(PIXEL, step(COMIC, step(PLAIN, None, "latent"), "latent"), "np")
    show("chain", made)
    name, style = judge.shares(made, inputs_of, np.full(len(inputs_of), PIXEL))
    figures["chain"] = {"chains": len(made), "name": name, "style": style}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a checkpoint")
    parser.add_argument("--names", type=int, default=208, help="how many names it was trained on")
    parser.add_argument("--pictures", type=Path, help="a folder for sheets of results")
    parser.add_argument("--quick", action="store_true", help="64 text2img prompts only")
    arguments = parser.parse_args()
    if arguments.pictures:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
    figures = measure(arguments.folder, arguments.names, arguments.pictures, arguments.quick)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
