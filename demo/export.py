"""Write a trained pipeline as the package's demo checkpoint: float16, published layout."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from data import GROUNDS, glyphs, names, render
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from tokenizer import write_tokenizer

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ("red apple", "cat face", "automobile")


def export(source: Path, target: Path) -> None:
    """Convert to float16, with the names and files that published checkpoints have.

    Newer versions of transformers write the text encoder without its prefix "text_model." and the
    tokenizer without vocab.json and merges.txt.
    """
    pipe = StableDiffusionPipeline.from_pretrained(source, dtype=torch.float16)
    pipe.save_pretrained(target, safe_serialization=True)
    text = target / "text_encoder" / "model.safetensors"
    weights = {
        name if name.startswith("text_model.") else f"text_model.{name}": weight
        for name, weight in load_file(text).items()
    }
    save_file(weights, text, metadata={"format": "pt"})
    shutil.rmtree(target / "tokenizer")
    shutil.copytree(source / "tokenizer", target / "tokenizer")
    (target / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)
    write_tokenizer(target / "tokenizer", [])
    for file in target.rglob("*.safetensors"):
        file.chmod(0o644)
    for file in target.rglob("*.json"):
        values = json.loads(file.read_text(encoding="utf-8"))
        # Where it was trained says nothing to those who load it.
        if values.pop("_name_or_path", None) is not None:
            file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def draw_samples(folder: Path) -> None:
    """Inputs to try the demo on, drawn as the training pictures are."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures, known = glyphs(), names()
    for number, name in enumerate(SAMPLES):
        picture = render(pictures[known.index(name)], "plain", GROUNDS[number])
        picture.save(folder / f"{name.replace(' ', '-')}.png", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="the folder that train_unet.py wrote")
    parser.add_argument("--target", type=Path, default=ROOT / "worker" / "checkpoints" / "demo")
    parser.add_argument("--samples", type=Path, default=ROOT / "producer" / "samples")
    arguments = parser.parse_args()
    export(arguments.source, arguments.target)
    draw_samples(arguments.samples)
    size = sum(file.stat().st_size for file in arguments.target.rglob("*") if file.is_file())
    print(f"{arguments.target}: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
