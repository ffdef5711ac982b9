"""Writes small checkpoints in the published layout of Stable Diffusion 2.1, with drawn weights.

As `tiny.py`: shapes are stored (`tiny_sd2.shapes.json`, written by `make_sd2.py`), weights drawn.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tiny import draw, old_attention, write_json, write_tokenizer

SHAPES = Path(__file__).with_name("tiny_sd2.shapes.json")

MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.10.0.dev0",
    "feature_extractor": ["transformers", "CLIPFeatureExtractor"],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}

SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "_diffusers_version": "0.8.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}

#: 64 channels a head at each level, as published.
UNET = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.10.0.dev0",
    "act_fn": "silu",
    "attention_head_dim": [1, 2, 3],
    "block_out_channels": [64, 128, 192],
    "center_input_sample": False,
    "cross_attention_dim": 128,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 1,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "out_channels": 4,
    "sample_size": 8,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "upcast_attention": True,
    "use_linear_projection": True,
}

VAE = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.10.0.dev0",
    "act_fn": "silu",
    "block_out_channels": [32, 32, 64, 64],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 64,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}

TEXT_ENCODER = {
    "_name_or_path": "hf-models/stable-diffusion-v2-768x768/text_encoder",
    "architectures": ["CLIPTextModel"],
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dropout": 0.0,
    "eos_token_id": 2,
    "hidden_act": "gelu",
    "hidden_size": 128,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 256,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "pad_token_id": 1,
    "projection_dim": 64,
    "torch_dtype": "float32",
    "transformers_version": "4.25.0.dev0",
    "vocab_size": 577,
}


def write_stable_diffusion_2(folder: Path) -> Path:
    """Writes a whole tiny Stable Diffusion 2.1 checkpoint into `folder` and returns it."""
    write_json(folder / "model_index.json", MODEL_INDEX)
    write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    write_tokenizer(folder / "tokenizer")
    change_json(folder / "tokenizer" / "special_tokens_map.json", pad_token="!")
    for name, config, stem in (
        ("unet", UNET, "diffusion_pytorch_model"),
        ("vae", VAE, "diffusion_pytorch_model"),
        ("text_encoder", TEXT_ENCODER, "model"),
    ):
        write_json(folder / name / "config.json", config)
        save_file(weights(name), folder / name / f"{stem}.safetensors", {"format": "pt"})
    return folder


def weights(component: str) -> dict[str, np.ndarray]:
    """The weights of one component under their published names."""
    shapes = json.loads(SHAPES.read_text())[component]
    tensors = {key: draw(key, shape) for key, shape in shapes.items()}
    if component == "vae":
        return dict(old_attention(key, value, "old") for key, value in tensors.items())
    if component == "text_encoder":
        tensors["text_model.embeddings.position_ids"] = np.arange(77, dtype=np.int64)[None]
    return tensors


def change_json(path: Path, **changes: Any) -> None:
    write_json(path, {**json.loads(path.read_text("utf-8")), **changes})
