"""Writes small LoRA files for the tiny Stable Diffusion 1.x, in the namings that there are."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import tiny_sdxl
from original_shapes import unet
from safetensors.numpy import save_file

#: Layers of each kind, with the rank of their change.
UNET = {
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": 4,
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k": 4,
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v": 4,
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0": 4,
    "mid_block.attentions.0.transformer_blocks.0.attn2.to_q": 8,
    "up_blocks.1.attentions.1.transformer_blocks.0.attn2.to_k": 4,
    "up_blocks.3.attentions.0.transformer_blocks.0.attn1.to_v": 4,
}
DENSE = {
    "up_blocks.2.attentions.0.transformer_blocks.0.ff.net.0.proj": 4,
    "up_blocks.2.attentions.0.transformer_blocks.0.ff.net.2": 8,
}
CONVOLUTIONS = {
    "down_blocks.0.attentions.0.proj_in": 4,
    "up_blocks.1.attentions.0.proj_out": 4,
    "down_blocks.1.resnets.0.conv1": 8,
    "down_blocks.1.resnets.0.conv_shortcut": 4,
    "down_blocks.0.downsamplers.0.conv": 4,
    "up_blocks.1.upsamplers.0.conv": 4,
}
TEXT = {
    "text_model.encoder.layers.0.self_attn.q_proj": 4,
    "text_model.encoder.layers.1.self_attn.v_proj": 4,
    "text_model.encoder.layers.1.self_attn.out_proj": 4,
}
MLP = {"text_model.encoder.layers.0.mlp.fc1": 4}

#: Layers of Stable Diffusion XL's UNet as its original code calls them.
XL_UNET = (
    "input_blocks.1.0.in_layers.2",
    "input_blocks.2.0.op",
    "input_blocks.3.0.skip_connection",
    "input_blocks.3.0.emb_layers.1",
    "input_blocks.3.1.proj_in",
    "input_blocks.3.1.transformer_blocks.0.attn1.to_q",
    "input_blocks.5.1.transformer_blocks.1.attn2.to_k",
    "middle_block.0.out_layers.3",
    "middle_block.1.transformer_blocks.0.ff.net.0.proj",
    "output_blocks.0.1.proj_out",
    "output_blocks.1.1.transformer_blocks.0.attn1.to_out.0",
    "output_blocks.1.2.conv",
    "output_blocks.2.1.transformer_blocks.0.attn2.to_v",
    "output_blocks.3.2.conv",
    "output_blocks.4.0.in_layers.2",
)
#: Without the `out_proj` the reference would not know the naming.
XL_TEXT = (
    "text_model.encoder.layers.0.self_attn.q_proj",
    "text_model.encoder.layers.1.self_attn.out_proj",
    "text_model.encoder.layers.1.mlp.fc2",
)


def matrices(component: str, module: str, rank: int, seed: str) -> tuple[np.ndarray, np.ndarray]:
    """`down` and `up`, whose product is about as large as the weight that it is added to."""
    shape = tiny.weights(component)[f"{module}.weight"].shape
    return drawn(f"{seed}.{component}.{module}", shape, rank)


def drawn(name: str, shape: Sequence[int], rank: int) -> tuple[np.ndarray, np.ndarray]:
    ones = (1, 1) if len(shape) == 4 else ()
    down = tiny.normal(f"{name}.down", (rank, *shape[1:])) / np.sqrt(np.prod(shape[1:]))
    up = tiny.normal(f"{name}.up", (shape[0], rank, *ones)) / np.sqrt(rank)
    return down.astype(np.float32), up.astype(np.float32)


def write_kohya(path: Path, seed: str = "kohya") -> Path:
    """As kohya's scripts and LyCORIS' LoCon write it: convolutions too, and an alpha each."""
    tensors = {}
    for component, short, layers in (
        ("unet", "unet", {**UNET, **DENSE, **CONVOLUTIONS}),
        ("text_encoder", "te", {**TEXT, **MLP}),
    ):
        for module, rank in layers.items():
            name = f"lora_{short}_{module.replace('.', '_')}"
            down, up = matrices(component, module, rank, seed)
            tensors[f"{name}.lora_down.weight"] = down
            tensors[f"{name}.lora_up.weight"] = up
            alpha = 2.0 if component == "unet" else 3.0
            tensors[f"{name}.alpha"] = np.array(alpha, np.float32)
    save_file(tensors, path, {"ss_network_dim": "4"})
    return path


def write_diffusers(path: Path, seed: str = "diffusers", metadata: bool = False) -> Path:
    """As diffusers writes it by PEFT, the alphas in metadata if at all."""
    tensors = {}
    for component, layers in (
        ("unet", {**UNET, **CONVOLUTIONS}),
        ("text_encoder", {**TEXT, **MLP}),
    ):
        for module, rank in layers.items():
            down, up = matrices(component, module, rank, seed)
            tensors[f"{component}.{module}.lora_A.weight"] = down
            tensors[f"{component}.{module}.lora_B.weight"] = up
    told = {"lora_adapter_metadata": json.dumps(adapter_metadata())} if metadata else {}
    save_file(tensors, path, {"format": "pt", **told})
    return path


def adapter_metadata() -> dict[str, Any]:
    """Alphas of 2 in the UNet, but for one layer, and the rank's root in the text encoder."""
    unet = {**UNET, **CONVOLUTIONS}
    text = {**TEXT, **MLP}
    eights = [module for module, rank in unet.items() if rank == 8]
    return {
        "unet.r": 4,
        "unet.lora_alpha": 2,
        "unet.rank_pattern": dict.fromkeys(eights, 8),
        "unet.alpha_pattern": {"mid_block.attentions.0.transformer_blocks.0.attn2.to_q": 6},
        "unet.target_modules": list(unet),
        "text_encoder.r": 4,
        "text_encoder.lora_alpha": 1,
        "text_encoder.use_rslora": True,
        "text_encoder.target_modules": [m.removeprefix("text_model.") for m in text],
    }


def write_processors(path: Path, prefix: str = "unet.") -> Path:
    """As diffusers wrote attention processors in 2023."""
    tensors = {}
    for module, rank in UNET.items():
        attention, name = module.removesuffix(".0").rsplit(".", 1)
        down, up = matrices("unet", module, rank, "processors")
        tensors[f"{prefix}{attention}.processor.{name}_lora.down.weight"] = down
        tensors[f"{prefix}{attention}.processor.{name}_lora.up.weight"] = up
    save_file(tensors, path, {"format": "pt"})
    return path


def write_kohya_xl(path: Path) -> Path:
    """As kohya's scripts write it for Stable Diffusion XL."""
    shapes = {
        f"lora_unet_{m.replace('.', '_')}": unet(tiny_sdxl.UNET)[f"{m}.weight"] for m in XL_UNET
    }
    for short, component in (("te1", "text_encoder"), ("te2", "text_encoder_2")):
        weights = tiny_sdxl.weights(component)
        shapes |= {
            f"lora_{short}_{m.replace('.', '_')}": weights[f"{m}.weight"].shape for m in XL_TEXT
        }
    tensors = {}
    for name, shape in shapes.items():
        down, up = drawn(name, shape, 4)
        tensors[f"{name}.lora_down.weight"] = down
        tensors[f"{name}.lora_up.weight"] = up
        tensors[f"{name}.alpha"] = np.array(1.0, np.float32)
    save_file(tensors, path)
    return path


def fingerprints(weights: dict[str, np.ndarray]) -> np.ndarray:
    """A number for each weight, in the order of their keys, that any change of it changes."""
    return np.array(
        [np.vdot(tiny.normal(key, w.shape).astype(float), w) for key, w in sorted(weights.items())]
    )
