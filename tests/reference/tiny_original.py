"""Writes small checkpoints twice: in one file with the original code's naming, and as a folder.

Which tensor of the file becomes which of the folder stands in `original.json.gz`, as the
reference's own conversion has it (`make_original.py`).
"""

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tiny_sd2
from safetensors.numpy import save_file
from tiny import SCHEDULER, draw, normal, write_json, write_tokenizer

TABLE = Path(__file__).with_name("original.json.gz")

COMMON = {
    "_class_name": "UNet2DConditionModel",
    "act_fn": "silu",
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 8,
}

CLIP = {
    **tiny_sd2.TEXT_ENCODER,
    "hidden_act": "quick_gelu",
    "num_hidden_layers": 2,
    "projection_dim": 128,
}

BIG_CLIP = {
    **tiny_sd2.TEXT_ENCODER,
    "architectures": ["CLIPTextModelWithProjection"],
    "num_hidden_layers": 2,
    "projection_dim": 96,
}

XL_VAE = {**tiny_sd2.VAE, "force_upcast": True, "scaling_factor": 0.13025}

XL_UNET = {
    **COMMON,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 16,
    "use_linear_projection": True,
    "upcast_attention": None,
}

EULER = {
    "_class_name": "EulerDiscreteScheduler",
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

#: The configuration of each part of each kind of checkpoint, as its folder would have it.
KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "sd1": {
        "unet": {
            **COMMON,
            "attention_head_dim": 8,
            "block_out_channels": [32, 64],
            "cross_attention_dim": 128,
            "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        },
        "vae": tiny_sd2.VAE,
        "text_encoder": CLIP,
        "scheduler": SCHEDULER,
    },
    "sd2": {
        "unet": tiny_sd2.UNET,
        "vae": tiny_sd2.VAE,
        "text_encoder": tiny_sd2.TEXT_ENCODER,
        "scheduler": tiny_sd2.SCHEDULER,
    },
    "sdxl": {
        "unet": {
            **XL_UNET,
            "attention_head_dim": [1, 2, 3],
            "block_out_channels": [64, 128, 192],
            "cross_attention_dim": 256,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "projection_class_embeddings_input_dim": 96 + 6 * 16,
            "transformer_layers_per_block": [1, 1, 2],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        },
        "vae": XL_VAE,
        "text_encoder": CLIP,
        "text_encoder_2": BIG_CLIP,
        "scheduler": EULER,
    },
    "refiner": {
        "unet": {
            **XL_UNET,
            "attention_head_dim": [1, 2, 3, 3],
            "block_out_channels": [64, 128, 192, 192],
            "cross_attention_dim": 128,
            "down_block_types": [
                "DownBlock2D",
                "CrossAttnDownBlock2D",
                "CrossAttnDownBlock2D",
                "DownBlock2D",
            ],
            "projection_class_embeddings_input_dim": 96 + 5 * 16,
            "transformer_layers_per_block": 2,
            "up_block_types": [
                "UpBlock2D",
                "CrossAttnUpBlock2D",
                "CrossAttnUpBlock2D",
                "UpBlock2D",
            ],
        },
        "vae": XL_VAE,
        "text_encoder_2": BIG_CLIP,
        "scheduler": EULER,
    },
}

CLASSES = {
    "sd1": {"_class_name": "StableDiffusionPipeline"},
    "sd2": {"_class_name": "StableDiffusionPipeline"},
    "sdxl": {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": True},
    "refiner": {
        "_class_name": "StableDiffusionXLImg2ImgPipeline",
        "force_zeros_for_empty_prompt": False,
        "requires_aesthetics_score": True,
    },
}

LIBRARIES = {
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


@cache
def table(kind: str) -> dict[str, Any]:
    """`shapes` of each part's tensors in a folder, and `origins`.

    `origins` has for each tensor of the file its shape there, whether it is transposed, and the
    part and keys whose tensors lie in it one below the other; none for what no folder has.
    """
    return json.loads(gzip.decompress(TABLE.read_bytes()))[kind]


@cache
def weights(kind: str, component: str) -> dict[str, np.ndarray]:
    """The weights of one part under the names of a folder."""
    shapes = table(kind)["shapes"][component]
    return {key: draw(f"{component}.{key}", shape) for key, shape in shapes.items()}


def file_tensors(kind: str) -> dict[str, np.ndarray]:
    """The tensors of the file."""
    tensors = {}
    for key, (shape, transposed, component, names) in table(kind)["origins"].items():
        parts = [weights(kind, component)[name] for name in names]
        whole = np.concatenate(parts) if parts else np.asarray(normal(key, shape))
        tensors[key] = np.ascontiguousarray(whole.T if transposed else whole).reshape(shape)
    return tensors


def write_file(kind: str, path: Path, **extra: np.ndarray) -> Path:
    """The checkpoint as one file, with a tokenizer beside it."""
    write_tokenizer(path.parent / "tokenizer")
    save_file({**file_tensors(kind), **extra}, path, {"format": "pt"})
    return path


def write_folder(kind: str, folder: Path) -> Path:
    """The same checkpoint as a folder."""
    index = dict(CLASSES[kind])
    for component, config in KINDS[kind].items():
        index[component] = LIBRARIES[component]
        name = "scheduler_config.json" if component == "scheduler" else "config.json"
        write_json(folder / component / name, config)
        if component.startswith("text_encoder"):
            tokenizer = component.replace("text_encoder", "tokenizer")
            index[tokenizer] = LIBRARIES[tokenizer]
            write_tokenizer(folder / tokenizer)
            if config["hidden_act"] == "gelu":
                path = folder / tokenizer / "special_tokens_map.json"
                tiny_sd2.change_json(path, pad_token="!")
        if component != "scheduler":
            library, _ = LIBRARIES[component]
            stem = "diffusion_pytorch_model" if library == "diffusers" else "model"
            save_file(weights(kind, component), folder / component / f"{stem}.safetensors")
    write_json(folder / "model_index.json", index)
    return folder
