"""Writes `tiny.shapes.json` and `models.npz`: what diffusers' own models give for tiny checkpoints.

Run in the reference environment of `requirements.txt`: python tests/reference/make_models.py
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

OUTPUT = Path(__file__).with_name("models.npz")


def write_shapes() -> None:
    text = CLIPTextModel(CLIPTextConfig(**tiny.TEXT_ENCODER))
    models = {
        "unet": UNet2DConditionModel.from_config(tiny.UNET),
        "vae": AutoencoderKL.from_config(tiny.VAE),
        "text_encoder": text,
    }
    shapes = {
        name: {published(name, key): list(t.shape) for key, t in model.state_dict().items()}
        for name, model in models.items()
    }
    lines = [
        f'"{name}": {{\n' + ",\n".join(f'"{k}": {json.dumps(s)}' for k, s in keys.items()) + "\n}"
        for name, keys in shapes.items()
    ]
    tiny.SHAPES.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


def published(component: str, key: str) -> str:
    """The published files say `text_model.` before each name, which transformers 5 leaves out."""
    if component == "text_encoder" and not key.startswith("text_model."):
        return f"text_model.{key}"
    return key


@torch.no_grad()
def outputs(folder: Path) -> dict[str, np.ndarray]:
    unet, vae, text = load(folder)
    result: dict[str, Any] = {}
    for name, shape in {"unet": (2, 4, 8, 8), "unet_odd": (1, 4, 9, 13)}.items():
        rows = shape[0]
        latents = normal(name, shape)
        context = normal(name + "_context", (rows, 77, tiny.UNET["cross_attention_dim"]))
        timesteps = torch.tensor([999.0, 37.0][:rows])
        result[name] = unet(latents, timesteps, context).sample
    ids = np.random.Generator(np.random.Philox(1)).integers(0, 577, (2, 77))
    states = text(torch.from_numpy(ids), output_hidden_states=True)
    result["text_encoder"] = states.last_hidden_state
    posterior = vae.encode(normal("pixels", (1, 3, 64, 48))).latent_dist
    result["vae_mean"], result["vae_logvar"] = posterior.mean, posterior.logvar
    result["vae_decode"] = vae.decode(normal("latents", (1, 4, 8, 6))).sample
    return {name: tensor.float().numpy() for name, tensor in result.items()}


def load(folder: Path) -> tuple[Any, Any, Any]:
    unet = UNet2DConditionModel.from_pretrained(folder / "unet").eval()
    vae = AutoencoderKL.from_pretrained(folder / "vae").eval()
    text = CLIPTextModel.from_pretrained(folder / "text_encoder").eval()
    return unet, vae, text


def normal(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(tiny.normal(name, shape))


if __name__ == "__main__":
    write_shapes()
    with tempfile.TemporaryDirectory() as temporary:
        arrays = outputs(tiny.write_stable_diffusion(Path(temporary)))
    for name, array in arrays.items():
        print(f"{name}: shape {array.shape}, mean {array.mean():.3f}, std {array.std():.3f}")
    np.savez_compressed(OUTPUT, **arrays)
