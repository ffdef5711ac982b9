"""Writes lora.npz: pictures of the tiny Stable Diffusion 1.x with LoRAs fused by the reference.

Run in the reference environment (requirements.txt): python tests/reference/make_lora.py
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import tiny_lora
import tiny_sdxl
from make_pipelines import reference_pipeline, results

OUTPUT = Path(__file__).with_name("lora.npz")

FILES: dict[str, Callable[[Path], Path]] = {
    "kohya": tiny_lora.write_kohya,
    "diffusers": tiny_lora.write_diffusers,
    "metadata": lambda path: tiny_lora.write_diffusers(path, metadata=True),
    "processors": tiny_lora.write_processors,
}

#: The files that are fused for each picture, each with its weight.
CASES: dict[str, dict[str, float]] = {
    "kohya": {"kohya": 0.8},
    "kohya_negative": {"kohya": -0.5},
    "diffusers": {"diffusers": 0.5},
    "metadata": {"metadata": 0.7},
    "processors": {"processors": 1.0},
    "two": {"kohya": 0.6, "diffusers": 0.4},
}

XL_WEIGHT = 0.75

RUN: dict[str, Any] = {"image": (64, 64), "strength": 0.6}


def main() -> None:
    arrays = {}
    for name, loras in CASES.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            pipe = reference_pipeline(tiny.write_stable_diffusion(folder / "checkpoint"))
            for file in loras:
                path = FILES[file](folder / f"{file}.safetensors")
                pipe.load_lora_weights(folder, weight_name=path.name, adapter_name=file)
            pipe.set_adapters(list(loras), list(loras.values()))
            pipe.fuse_lora(adapter_names=list(loras))
            pipe.unload_lora_weights()
            arrays[name] = results(pipe, {name: RUN})[name]
    np.savez_compressed(OUTPUT, **arrays, **fused_xl())


def fused_xl() -> dict[str, np.ndarray]:
    """Fingerprints of the weights of Stable Diffusion XL, in which a LoRA is fused."""
    from diffusers import StableDiffusionXLPipeline
    from make_models import published

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pipe = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl.write_base(folder / "base"))
        path = tiny_lora.write_kohya_xl(folder / "lora.safetensors")
        pipe.load_lora_weights(folder, weight_name=path.name, adapter_name="xl")
        pipe.fuse_lora(
            components=["unet", "text_encoder", "text_encoder_2"],
            adapter_names=["xl"],
            lora_scale=XL_WEIGHT,
        )
        pipe.unload_lora_weights()
    return {
        f"xl_{name}": tiny_lora.fingerprints(
            {published(name, k): t.numpy() for k, t in getattr(pipe, name).state_dict().items()}
        )
        for name in ("unet", "text_encoder", "text_encoder_2")
    }


if __name__ == "__main__":
    main()
