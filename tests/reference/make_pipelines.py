"""Writes pipelines.npz: what the reference's pipelines make of the tiny checkpoint.

Needs diffusers (requirements.txt); run as `python tests/reference/make_pipelines.py`. The
product's noise takes the place of torch's, so that both start from the same numbers.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tiny
from PIL import Image

HERE = Path(__file__).parent

BASE = {"prompt": "a photo of a cat", "num_inference_steps": 5, "guidance_scale": 7.5, "seed": 1}
SQUARE, ODD = {"width": 64, "height": 64}, {"width": 72, "height": 56}

#: Arguments of each run over BASE; `image` is a picture, the size of a drawn one, or "latent".
CASES: dict[str, dict[str, Any]] = {
    "text_pndm": {**SQUARE},
    "text_ddim": {**SQUARE, "scheduler": "DDIMScheduler", "negative_prompt": "low"},
    "text_euler": {**SQUARE, "scheduler": "EulerDiscreteScheduler"},
    "text_unguided": {**SQUARE, "guidance_scale": 1.0},
    "text_odd_size": {**ODD, "seed": 2**40},
    "image_03_pndm": {"image": (64, 64), "strength": 0.3, "num_inference_steps": 10},
    "image_06_pndm": {"image": (64, 64), "strength": 0.6},
    "image_10_pndm": {"image": (64, 64), "strength": 1.0},
    "image_06_ddim": {"image": (64, 64), "strength": 0.6, "scheduler": "DDIMScheduler"},
    "image_06_euler": {"image": (64, 64), "strength": 0.6, "scheduler": "EulerDiscreteScheduler"},
    "image_10_euler": {"image": (64, 64), "strength": 1.0, "scheduler": "EulerDiscreteScheduler"},
    "image_karras": {
        "image": (64, 64),
        "strength": 0.6,
        "scheduler": {"class": "EulerDiscreteScheduler", "use_karras_sigmas": True},
    },
    "image_negative": {"image": (64, 64), "strength": 0.6, "negative_prompt": "blue sea, low"},
    "image_unguided": {"image": (64, 64), "strength": 0.6, "guidance_scale": 1.0},
    "image_rounded_down": {"image": (79, 63), "strength": 0.6},
    "image_resized": {"image": (100, 40), "strength": 0.6, **SQUARE},
    "image_latent": {"image": "latent", "strength": 0.6},
}
#: Runs whose latent is kept too.
LATENTS = ("text_pndm", "image_06_pndm")


def picture(width: int, height: int) -> Image.Image:
    """Soft waves of colour."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (5 + 3 * c) + c) * np.cos(y / (9 - 2 * c)) for c in range(3)]
    return Image.fromarray(np.uint8(127 + 120 * np.stack(waves, axis=-1)))


def latent() -> np.ndarray:
    """A latent of a 64x64 picture, as an earlier run might have left it."""
    return np.random.default_rng(5).standard_normal((4, 8, 8), dtype=np.float32)


def arguments(case: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the product's pipeline for one case."""
    image = case.get("image")
    if image is not None and not isinstance(image, Image.Image):
        case = {**case, "image": latent() if image == "latent" else picture(*image)}
    return {**BASE, **case}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        arrays = results(reference_pipeline(tiny.write_stable_diffusion(Path(folder))), CASES)
    np.savez_compressed(HERE / "pipelines.npz", **arrays)


def reference_pipeline(folder: Path) -> Any:
    """The reference's pipeline of a checkpoint, in float32 and with the product's noise."""
    import torch
    from diffusers import StableDiffusionPipeline
    from diffusers.models.autoencoders import vae
    from diffusers.pipelines.stable_diffusion import (
        pipeline_stable_diffusion,
        pipeline_stable_diffusion_img2img,
    )

    def randn_tensor(shape: Any, generator: np.random.Generator, **_: Any) -> torch.Tensor:
        return torch.from_numpy(generator.standard_normal(tuple(shape), dtype=np.float32))

    for module in (vae, pipeline_stable_diffusion, pipeline_stable_diffusion_img2img):
        module.randn_tensor = randn_tensor
    return StableDiffusionPipeline.from_pretrained(
        folder,
        torch_dtype=torch.float32,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def results(pipe: Any, cases: dict[str, dict[str, Any]]) -> dict[str, np.ndarray]:
    """What the reference makes of each case: pictures as float16, latents as float32."""
    from diffusers import StableDiffusionImg2ImgPipeline

    published = pipe.scheduler
    arrays = {}
    for name, case in cases.items():
        given = arguments(case)
        pipe.scheduler = other_scheduler(published, given.pop("scheduler", None))
        seed = given.pop("seed")
        if "image" in given:
            run = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
            run.scheduler = pipe.scheduler
            size = given.pop("width", None), given.pop("height", None)
            given["image"] = as_reference_takes_it(given["image"], size)
        else:
            run = pipe
        run.set_progress_bar_config(disable=True)
        for output_type in ("np", "latent") if name in LATENTS else ("np",):
            generator = np.random.Generator(np.random.Philox(seed))
            result = run(**given, generator=generator, output_type=output_type).images[0]
            kept = result.numpy() if output_type == "latent" else result.astype(np.float16)
            arrays[name if output_type == "np" else f"{name}_latent"] = kept
    return arrays


def other_scheduler(published: Any, override: Any) -> Any:
    """A scheduler of the reference made from the published one's configuration."""
    import diffusers

    if override is None:
        return type(published).from_config(published.config)
    fields = {} if isinstance(override, str) else dict(override)
    name = fields.pop("class", override)
    return getattr(diffusers, name).from_config(published.config, **fields)


def as_reference_takes_it(image: Any, size: tuple[int | None, int | None]) -> Any:
    """The reference knows no size for image to image: the picture is resized before."""
    import torch

    if isinstance(image, np.ndarray):
        return torch.from_numpy(image)[None]
    return image.resize(size, Image.Resampling.LANCZOS) if all(size) else image


if __name__ == "__main__":
    main()
