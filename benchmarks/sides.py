"""One side of the comparison: a process that runs a named stage when asked, and says how long.

    python -m benchmarks.sides mindspore|torch CHECKPOINT SIZE

Reads lines `stage rows` from standard input and answers each with seconds, until the input ends.
The stages of both sides do the same work on the same weights, in float32. `UNet GFLOP`, which torch
counts, is answered with that number instead.
"""

import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PROMPT = "red apple, comic style"
STEPS, STRENGTH, GUIDANCE = 20, 0.6, 7.5

#: What a stage does once, given the number of rows.
Stage = Callable[[int], Any]


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def mindspore_stages(folder: Path, size: int) -> dict[str, Stage]:
    from mindspore import Tensor
    from PIL import Image

    from worker.diffusion import Pipeline
    from worker.diffusion.models import shared

    pipe = Pipeline.from_pretrained(folder)
    context = pipe.encode_prompt(PROMPT)[0]
    side, channels = size // pipe.vae_scale_factor, pipe.vae.config.latent_channels
    ids = np.array([pipe.encode_prompt.tokenizer(PROMPT)], np.int32)
    picture = Image.new("RGB", (size, size), "red")

    def unet(rows: int) -> Any:
        timesteps = np.full(rows, 500, np.float32)
        return pipe.predict(
            numbers(rows, channels, side, side), timesteps, np.stack([context] * rows)
        )

    def load(_: int) -> Any:
        # Else it would be given the models of the one that is loaded.
        shared._held.clear()
        return Pipeline.from_pretrained(folder)

    sizes: list[int] = []

    def job(rows: int) -> Any:
        if sizes[-1:] != [rows]:
            # Another number of rows begins with the batch size that fits it.
            pipe.forget_graphs()
            sizes.append(rows)
        return pipe(
            [PROMPT] * rows, picture, num_inference_steps=STEPS, strength=STRENGTH,
            guidance_scale=GUIDANCE, seed=list(range(rows)),
        )  # fmt: skip

    return {
        "load": load,
        "text encoder": lambda _: pipe.encode_prompt.text_encoder(Tensor(ids)).asnumpy(),
        "UNet step": unet,
        "VAE encode": lambda rows: pipe.encode_pixels(numbers(rows, 3, size, size)),
        "VAE decode": lambda rows: pipe.decode_latents(numbers(rows, channels, side, side)),
        "img2img job": job,
    }


def torch_stages(folder: Path, size: int) -> dict[str, Stage]:
    import torch
    from diffusers import StableDiffusionImg2ImgPipeline
    from PIL import Image
    from torch.utils.flop_counter import FlopCounterMode

    torch.set_grad_enabled(False)

    def load() -> Any:
        return StableDiffusionImg2ImgPipeline.from_pretrained(
            folder, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
            torch_dtype=torch.float32,
        )  # fmt: skip

    pipe = load()
    pipe.set_progress_bar_config(disable=True)
    ids = pipe.tokenizer(PROMPT, padding="max_length", max_length=77, return_tensors="pt").input_ids
    context = pipe.text_encoder(ids)[0]
    scale = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    side, channels = size // scale, pipe.vae.config.latent_channels
    picture = Image.new("RGB", (size, size), "red")

    def tensor(*shape: int) -> Any:
        return torch.from_numpy(numbers(*shape))

    def unet(rows: int) -> Any:
        timesteps = torch.full((rows,), 500.0)
        return pipe.unet(tensor(rows, channels, side, side), timesteps, context.repeat(rows, 1, 1))

    def gflop(rows: int) -> float:
        with FlopCounterMode(display=False) as counter:
            unet(rows)
        return counter.get_total_flops() / 1e9

    def job(rows: int) -> Any:
        return pipe(
            [PROMPT] * rows, image=[picture] * rows, num_inference_steps=STEPS, strength=STRENGTH,
            guidance_scale=GUIDANCE,
        )  # fmt: skip

    return {
        "load": lambda _: load(),
        "text encoder": lambda _: pipe.text_encoder(ids),
        "UNet step": unet,
        "VAE encode": lambda rows: pipe.vae.encode(tensor(rows, 3, size, size)).latent_dist.mean,
        "VAE decode": lambda rows: pipe.vae.decode(tensor(rows, channels, side, side)).sample,
        "img2img job": job,
        "UNet GFLOP": gflop,
    }


def main() -> None:
    name, folder, size = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    stages = {"mindspore": mindspore_stages, "torch": torch_stages}[name](folder, size)
    print("ready", flush=True)
    for line in sys.stdin:
        stage, rows = line.rstrip("\n").rsplit(" ", 1)
        found = None
        gc.collect()  # models are in cycles, and a third of full size does not fit
        begun = time.perf_counter()
        found = stages[stage](int(rows))
        seconds = time.perf_counter() - begun
        print(found if stage.endswith("GFLOP") else seconds, flush=True)


if __name__ == "__main__":
    main()
