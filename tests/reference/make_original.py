"""Writes original.json.gz: what each tensor of a single-file checkpoint becomes in a folder.

The reference's own conversion is given tensors with the names of `original_shapes.py`, and where
each of their values went is read off what it returns. That all of the reference's models are filled
so, strictly, is checked. Run in the reference environment: python tests/reference/make_original.py
"""

import gzip
import json
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from make_models import published
from original_shapes import ENCODERS, Shapes, open_clip, unet, vae
from tiny_original import KINDS, TABLE
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection


def values(shapes: Shapes, prefix: str) -> dict[str, torch.Tensor]:
    """Numbers that are all different, so that each can be found again."""
    generator = np.random.default_rng(len(prefix))
    return {
        prefix + key: torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))
        if shape
        else torch.tensor(1.0)
        for key, shape in shapes.items()
    }


def text_model(component: str, config: dict[str, Any]) -> Any:
    kind = CLIPTextModel if component == "text_encoder" else CLIPTextModelWithProjection
    return kind(CLIPTextConfig(**config))


def converted(kind: str, component: str) -> tuple[dict, dict, Any]:
    """The tensors of one part of the file, what the reference makes of them, and its model."""
    config = KINDS[kind][component]
    if component == "unet":
        given = values(unet(config), "model.diffusion_model.")
        model = UNet2DConditionModel.from_config(config)
        return given, convert_ldm_unet_checkpoint(dict(given), config), model
    if component == "vae":
        given = values(vae(config), "first_stage_model.")
        model = AutoencoderKL.from_config(config)
        return given, convert_ldm_vae_checkpoint(dict(given), config), model
    model, prefix = text_model(component, config), ENCODERS[kind][component]
    if config["hidden_act"] == "quick_gelu":
        names = {published(component, key): t for key, t in model.state_dict().items()}
        given = values({key: list(t.shape) for key, t in names.items()}, prefix)
        return given, convert_ldm_clip_checkpoint(dict(given)), model
    # The reference knows Stable Diffusion 2's unused layer by its number.
    unused = 1 if kind == "sd2" else 0
    given = values(open_clip(config, config["num_hidden_layers"] + unused), prefix)
    last = f"{prefix}transformer.resblocks.{config['num_hidden_layers']}."
    shown = {
        key: tensor
        for key, tensor in given.items()
        if not (unused and (key.startswith(last) or key == f"{prefix}text_projection"))
    }
    return given, convert_open_clip_checkpoint(model, shown, prefix), model


def origins(given: dict, made: dict, component: str) -> dict[str, Any]:
    """For each tensor given: its shape, whether it was transposed, and what lies in it."""
    places: dict[bytes, tuple[str, int, bool]] = {}
    for key, tensor in given.items():
        array = tensor.numpy()
        parts = [(array, 0, False)]
        if array.ndim == 2:
            parts.append((array.T, 0, True))
        if "in_proj" in key:
            parts += [(part, i, False) for i, part in enumerate(np.split(array, 3))]
        for part, i, transposed in parts:
            places[part.tobytes()] = (key, i, transposed)
    found: dict[str, Any] = {key: [list(t.shape), False, component, {}] for key, t in given.items()}
    for name, tensor in made.items():
        key, i, transposed = places[tensor.numpy().tobytes()]
        found[key][1] = transposed
        found[key][3][i] = name
    return {
        key: [shape, transposed, part, [names[i] for i in sorted(names)]]
        for key, (shape, transposed, part, names) in found.items()
    }


def main() -> None:
    result: dict[str, Any] = {}
    for kind, parts in KINDS.items():
        shapes: dict[str, Any] = {}
        table: dict[str, Any] = {}
        for component in parts.keys() - {"scheduler"}:
            given, made, model = converted(kind, component)
            state = {published(component, k): t for k, t in model.state_dict().items()}
            assert made.keys() == state.keys(), sorted(made.keys() ^ state.keys())[:5]
            assert all(made[key].shape == state[key].shape for key in made)
            shapes[component] = {key: list(t.shape) for key, t in sorted(state.items())}
            table |= origins(given, made, component)
        table = dict(sorted(table.items()))
        print(
            f"{kind}: {len(table)} tensors, {sum(not v[3] for v in table.values())} of them unused"
        )
        result[kind] = {"shapes": dict(sorted(shapes.items())), "origins": table}
    TABLE.write_bytes(gzip.compress(json.dumps(result).encode(), mtime=0))


if __name__ == "__main__":
    main()
