"""Writes what diffusers' own models are and give for the tiny checkpoint.

`tiny.shapes.json`: the shapes of the weights; `tiny.epsilons.json`: the epsilon of each norm;
`models.npz`: outputs.

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

EPSILONS = Path(__file__).with_name("tiny.epsilons.json")
OUTPUT = Path(__file__).with_name("models.npz")


def write_architecture() -> None:
    text = CLIPTextModel(CLIPTextConfig(**tiny.TEXT_ENCODER))
    models = {
        "unet": UNet2DConditionModel.from_config(tiny.UNET),
        "unet_lists": UNet2DConditionModel.from_config(tiny.UNET_LISTS),
        "vae": AutoencoderKL.from_config(tiny.VAE),
        "text_encoder": text,
    }
    shapes = {
        name: {published(name, key): list(t.shape) for key, t in model.state_dict().items()}
        for name, model in models.items()
    }
    epsilons = {
        name: {
            published(name, path): module.eps
            for path, module in model.named_modules()
            if isinstance(module, (torch.nn.GroupNorm, torch.nn.LayerNorm))
        }
        for name, model in models.items()
    }
    write_tables(tiny.SHAPES, shapes)
    write_tables(EPSILONS, epsilons)


def write_tables(path: Path, tables: dict[str, dict[str, Any]]) -> None:
    """One line a key."""
    lines = [
        f'"{name}": {{\n' + ",\n".join(f'"{k}": {json.dumps(v)}' for k, v in keys.items()) + "\n}"
        for name, keys in tables.items()
    ]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


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
    lists = UNet2DConditionModel.from_config(tiny.UNET_LISTS).eval()
    weights = tiny.weights("unet_lists")
    lists.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    latents, context = normal("unet_odd", (1, 4, 9, 13)), normal("unet_odd_context", (1, 77, 32))
    result["unet_lists"] = lists(latents, torch.tensor([500.5]), context).sample
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
    write_architecture()
    with tempfile.TemporaryDirectory() as temporary:
        arrays = outputs(tiny.write_stable_diffusion(Path(temporary)))
    for name, array in arrays.items():
        print(f"{name}: shape {array.shape}, mean {array.mean():.3f}, std {array.std():.3f}")
    np.savez_compressed(OUTPUT, **arrays)
