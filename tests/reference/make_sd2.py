"""Writes what the reference makes of the tiny Stable Diffusion 2.1.

`tiny_sd2.shapes.json`: the shapes of the weights; `sd2.npz`: pictures. Run in the reference
environment of `requirements.txt`: python tests/reference/make_sd2.py
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tiny_sd2
from make_pipelines import SQUARE, reference_pipeline, results

OUTPUT = Path(__file__).with_name("sd2.npz")

#: Arguments of each run over make_pipelines.BASE.
CASES: dict[str, dict[str, Any]] = {
    "text": {**SQUARE},
    "text_negative": {**SQUARE, "negative_prompt": "low, blue!", "guidance_scale": 5.0},
    "text_euler": {**SQUARE, "scheduler": "EulerDiscreteScheduler"},
    "text_as_2_base": {
        **SQUARE,
        "scheduler": {"class": "PNDMScheduler", "prediction_type": "epsilon"},
    },
    "text_zero_snr": {
        **SQUARE,
        "scheduler": {
            "class": "DDIMScheduler",
            "rescale_betas_zero_snr": True,
            "timestep_spacing": "trailing",
        },
    },
    "image_06": {"image": (64, 64), "strength": 0.6},
    "image_03": {"image": (79, 63), "strength": 0.3, "num_inference_steps": 10},
    "image_euler": {"image": (64, 64), "strength": 0.6, "scheduler": "EulerDiscreteScheduler"},
    "image_latent": {"image": "latent", "strength": 0.8},
}


def write_shapes() -> None:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from make_models import published, write_tables
    from transformers import CLIPTextConfig, CLIPTextModel

    models = {
        "unet": UNet2DConditionModel.from_config(tiny_sd2.UNET),
        "vae": AutoencoderKL.from_config(tiny_sd2.VAE),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**tiny_sd2.TEXT_ENCODER)),
    }
    shapes = {
        name: {published(name, key): list(t.shape) for key, t in model.state_dict().items()}
        for name, model in models.items()
    }
    write_tables(tiny_sd2.SHAPES, shapes)


def main() -> None:
    write_shapes()
    with tempfile.TemporaryDirectory() as folder:
        path = tiny_sd2.write_stable_diffusion_2(Path(folder))
        arrays = results(reference_pipeline(path), CASES)
    np.savez_compressed(OUTPUT, **arrays)


if __name__ == "__main__":
    main()
