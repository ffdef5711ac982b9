"""Writes small checkpoints in the published layouts of SDXL's base and refiner 1.0.

As `tiny.py`: shapes are stored (`tiny_sdxl.shapes.json`, written by `make_sdxl.py`), weights
drawn. The two share their VAE and their second text encoder, as the published ones do.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tiny import TEXT_ENCODER as SD_TEXT_ENCODER
from tiny import VAE as SD_VAE
from tiny import draw, write_json, write_tokenizer

SHAPES = Path(__file__).with_name("tiny_sdxl.shapes.json")

BASE_INDEX = {
    "_class_name": "StableDiffusionXLPipeline",
    "_diffusers_version": "0.19.0.dev0",
    "add_watermarker": None,
    "force_zeros_for_empty_prompt": True,
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}

REFINER_INDEX = {
    **BASE_INDEX,
    "_class_name": "StableDiffusionXLImg2ImgPipeline",
    "force_zeros_for_empty_prompt": False,
    "requires_aesthetics_score": True,
    "text_encoder": [None, None],
    "tokenizer": [None, None],
}

SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": "0.19.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
    "use_karras_sigmas": False,
}

UNET = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.19.0.dev0",
    "act_fn": "silu",
    "addition_embed_type": "text_time",
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": 8,
    "attention_head_dim": [2, 4, 8],
    "block_out_channels": [32, 64, 64],
    "center_input_sample": False,
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_dim": 80,
    "cross_attention_norm": None,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 1,
    "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "norm_eps": 1e-05,
    "norm_num_groups": 16,
    "num_attention_heads": None,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "out_channels": 4,
    # The pooled text, and six numbers.
    "projection_class_embeddings_input_dim": 40 + 6 * 8,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "sample_size": 8,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
    "transformer_layers_per_block": [1, 1, 2],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "upcast_attention": None,
    "use_linear_projection": True,
}

REFINER_UNET = {
    **UNET,
    "attention_head_dim": [2, 4, 8, 8],
    "block_out_channels": [32, 64, 64, 64],
    "cross_attention_dim": 48,
    "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 2, "DownBlock2D"],
    # Without the size that was asked for, but with a score: five numbers.
    "projection_class_embeddings_input_dim": 40 + 5 * 8,
    "transformer_layers_per_block": 1,
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 2, "UpBlock2D"],
}

VAE = {
    **SD_VAE,
    "_diffusers_version": "0.19.0.dev0",
    "_name_or_path": "../sdxl-vae/",
    "force_upcast": True,
    "sample_size": 64,
    "scaling_factor": 0.13025,
}

TEXT_ENCODER = {**SD_TEXT_ENCODER, "transformers_version": "4.32.0.dev0"}

TEXT_ENCODER_2 = {
    **TEXT_ENCODER,
    "architectures": ["CLIPTextModelWithProjection"],
    "hidden_act": "gelu",
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "projection_dim": 40,
}

#: Shapes and weights by this name; each belongs to a component and has a configuration.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "base_unet": ("unet", UNET),
    "refiner_unet": ("unet", REFINER_UNET),
    "vae": ("vae", VAE),
    "text_encoder": ("text_encoder", TEXT_ENCODER),
    "text_encoder_2": ("text_encoder_2", TEXT_ENCODER_2),
}


def write_base(folder: Path, dtype: str = "float32", variant: str | None = None) -> Path:
    """Writes a whole tiny SDXL base into `folder` and returns it."""
    models = ("base_unet", "vae", "text_encoder", "text_encoder_2")
    return write(folder, BASE_INDEX, models, dtype, variant)


def write_refiner(folder: Path, dtype: str = "float32", variant: str | None = None) -> Path:
    """Writes a whole tiny SDXL refiner into `folder` and returns it."""
    return write(folder, REFINER_INDEX, ("refiner_unet", "vae", "text_encoder_2"), dtype, variant)


def write(
    folder: Path, index: dict[str, Any], models: tuple[str, ...], dtype: str, variant: str | None
) -> Path:
    folder = Path(folder)
    write_json(folder / "model_index.json", index)
    write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    suffix = f".{variant}" if variant else ""
    for model in models:
        component, config = MODELS[model]
        write_json(folder / component / "config.json", config)
        tensors = {key: tensor.astype(dtype) for key, tensor in weights(model).items()}
        stem = "model" if component.startswith("text_encoder") else "diffusion_pytorch_model"
        save_file(tensors, folder / component / f"{stem}{suffix}.safetensors", {"format": "pt"})
    if "text_encoder" in models:
        write_tokenizer(folder / "tokenizer")
    write_tokenizer(folder / "tokenizer_2")
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / "tokenizer_2" / name
        write_json(path, {**json.loads(path.read_text("utf-8")), "pad_token": "!"})
    return folder


def weights(model: str) -> dict[str, np.ndarray]:
    """The weights of one of MODELS under their published names."""
    shapes = json.loads(SHAPES.read_text("utf-8"))[model]
    prefix = f"{model}." if "encoder" in model else ""
    return {key: calm(key, draw(prefix + key, shape)) for key, shape in shapes.items()}


def calm(key: str, weight: np.ndarray) -> np.ndarray:
    """Weights of depth: drawn as `tiny.py` does, they would make each rounding error grow."""
    if "transformer_blocks" in key and weight.ndim == 2:
        return weight * np.float32(0.5)
    return weight
