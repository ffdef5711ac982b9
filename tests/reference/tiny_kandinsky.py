"""Writes small checkpoints in the published layout of Kandinsky 2.2, with drawn weights.

A decoder, whose card names its prior, and a prior. The shapes of the weights are those of the
reference's own models (`tiny_kandinsky.shapes.json`, written by `make_kandinsky.py`).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tiny import TEXT_ENCODER as SD_TEXT_ENCODER
from tiny import draw, write_json, write_tokenizer

SHAPES = Path(__file__).with_name("tiny_kandinsky.shapes.json")

DECODER_INDEX = {
    "_class_name": "KandinskyV22Pipeline",
    "_diffusers_version": "0.17.1",
    "movq": ["diffusers", "VQModel"],
    "scheduler": ["diffusers", "DDPMScheduler"],
    "unet": ["diffusers", "UNet2DConditionModel"],
}

PRIOR_INDEX = {
    "_class_name": "KandinskyV22PriorPipeline",
    "_diffusers_version": "0.17.1",
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "image_processor": ["transformers", "CLIPImageProcessor"],
    "prior": ["diffusers", "PriorTransformer"],
    "scheduler": ["diffusers", "UnCLIPScheduler"],
    "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
}

CARD = """---
license: apache-2.0
prior:
- {prior}
tags:
- text-to-image
- kandinsky
inference: false
---

# Kandinsky 2.2
"""

DECODER_SCHEDULER = {
    "_class_name": "DDPMScheduler",
    "_diffusers_version": "0.17.1",
    "beta_end": 0.012,
    "beta_schedule": "linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "clip_sample_range": 2.0,
    "dynamic_thresholding_ratio": 0.995,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sample_max_value": 2.0,
    "thresholding": True,
    "trained_betas": None,
    "variance_type": "learned_range",
}

PRIOR_SCHEDULER = {
    "_class_name": "UnCLIPScheduler",
    "_diffusers_version": "0.17.1",
    "clip_sample": True,
    "clip_sample_range": 5.0,
    "num_train_timesteps": 1000,
    "prediction_type": "sample",
    "variance_type": "fixed_small_log",
}

UNET = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.17.1",
    "act_fn": "silu",
    "addition_embed_type": "image",
    "addition_embed_type_num_heads": 64,
    "attention_head_dim": 8,
    "block_out_channels": [16, 32, 32, 48],
    "center_input_sample": False,
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_dim": 24,
    "cross_attention_norm": None,
    "down_block_types": ["ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3],
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "encoder_hid_dim": 32,
    "encoder_hid_dim_type": "image_proj",
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 1,
    "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "norm_eps": 1e-05,
    "norm_num_groups": 4,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "out_channels": 8,
    "projection_class_embeddings_input_dim": None,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "scale_shift",
    "sample_size": 8,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
    "up_block_types": [*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"],
    "upcast_attention": False,
    "use_linear_projection": False,
}

MOVQ = {
    "_class_name": "VQModel",
    "_diffusers_version": "0.17.1",
    "act_fn": "silu",
    "block_out_channels": [32, 32, 32, 64],
    "down_block_types": [*["DownEncoderBlock2D"] * 3, "AttnDownEncoderBlock2D"],
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "norm_type": "spatial",
    "num_vq_embeddings": 64,
    "out_channels": 3,
    "sample_size": 32,
    "scaling_factor": 0.18215,
    "up_block_types": ["AttnUpDecoderBlock2D", *["UpDecoderBlock2D"] * 3],
    "vq_embed_dim": 4,
}

PRIOR = {
    "_class_name": "PriorTransformer",
    "_diffusers_version": "0.17.1",
    "added_emb_type": "prd",
    "additional_embeddings": 4,
    "attention_head_dim": 12,
    "clip_embed_dim": None,
    "dropout": 0.0,
    "embedding_dim": 32,
    "embedding_proj_dim": None,
    "embedding_proj_norm_type": None,
    "encoder_hid_proj_type": "linear",
    "norm_in_type": None,
    "num_attention_heads": 4,
    "num_embeddings": 77,
    "num_layers": 2,
    "time_embed_act_fn": "silu",
    "time_embed_dim": None,
}

TEXT_ENCODER = {
    **SD_TEXT_ENCODER,
    "_name_or_path": "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
    "architectures": ["CLIPTextModelWithProjection"],
    "hidden_act": "gelu",
}

IMAGE_ENCODER = {
    "architectures": ["CLIPVisionModelWithProjection"],
    "attention_dropout": 0.0,
    "dropout": 0.0,
    "hidden_act": "gelu",
    "hidden_size": 48,
    "image_size": 28,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 80,
    "layer_norm_eps": 1e-05,
    "model_type": "clip_vision_model",
    "num_attention_heads": 4,
    "num_channels": 3,
    "num_hidden_layers": 2,
    "patch_size": 7,
    "projection_dim": 32,
    "torch_dtype": "float32",
    "transformers_version": "4.30.0.dev0",
}

MODELS = {
    "unet": UNET,
    "movq": MOVQ,
    "prior": PRIOR,
    "text_encoder": TEXT_ENCODER,
    "image_encoder": IMAGE_ENCODER,
}


def write_decoder(folder: Path, prior: str | Path | None) -> Path:
    """Writes a tiny decoder into `folder` and returns it; its card names `prior`, if any."""
    folder = Path(folder)
    write_json(folder / "model_index.json", DECODER_INDEX)
    write_json(folder / "scheduler" / "scheduler_config.json", DECODER_SCHEDULER)
    if prior is not None:
        (folder / "README.md").write_text(CARD.format(prior=prior), "utf-8")
    for name in ("unet", "movq"):
        write_model(folder / name, name)
    return folder


def write_prior(folder: Path) -> Path:
    """Writes a tiny prior into `folder` and returns it."""
    folder = Path(folder)
    write_json(folder / "model_index.json", PRIOR_INDEX)
    write_json(folder / "scheduler" / "scheduler_config.json", PRIOR_SCHEDULER)
    write_image_processor(folder / "image_processor")
    write_tokenizer(folder / "tokenizer")
    for name in ("prior", "text_encoder", "image_encoder"):
        write_model(folder / name, name)
    return folder


def write_combined(folder: Path) -> Path:
    """Writes decoder and prior as one checkpoint, as the reference saves them together."""
    folder = write_decoder(folder, None)
    write_prior(folder / "prior")
    parts = {name: pair for name, pair in PRIOR_INDEX.items() if isinstance(pair, list)}
    for name in parts:
        (folder / "prior" / name).rename(folder / f"prior_{name}")
    (folder / "prior" / "model_index.json").unlink()
    (folder / "prior").rmdir()
    combined = {**DECODER_INDEX, "_class_name": "KandinskyV22Img2ImgCombinedPipeline"}
    named = {f"prior_{name}": pair for name, pair in parts.items()}
    write_json(folder / "model_index.json", combined | named)
    return folder


def write_model(folder: Path, name: str) -> None:
    write_json(folder / "config.json", MODELS[name])
    stem = "model" if name.endswith("encoder") else "diffusion_pytorch_model"
    save_file(weights(name), folder / f"{stem}.safetensors", {"format": "pt"})


def write_image_processor(folder: Path) -> None:
    config: dict[str, Any] = {
        "crop_size": {"height": 28, "width": 28},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "CLIPImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": 28},
    }
    write_json(folder / "preprocessor_config.json", config)


def weights(name: str) -> dict[str, np.ndarray]:
    """The weights of one of MODELS under their published names."""
    shapes = json.loads(SHAPES.read_text("utf-8"))[name]
    return {key: weight(f"{name}.{key}", shape) for key, shape in shapes.items()}


def weight(key: str, shape: list[int]) -> np.ndarray:
    """As `tiny.draw`, with numbers of a size that shows for the few parameters of other kinds."""
    drawn = draw(key, shape)
    if key.endswith(("positional_embedding", "prd_embedding", "clip_mean", "clip_std")):
        spread = drawn / drawn.std() / 2
        return 1 + spread / 2 if key.endswith("clip_std") else spread
    return drawn
