"""Writes small checkpoints in the published layout of Stable Diffusion 1.x, with drawn weights.

Only shapes are stored (`tiny.shapes.json`, taken from the reference's own models by
`make_models.py`); each weight is drawn from a generator seeded by its key, so that the reference
and the product see the same numbers and no weights lie in the repository.
"""

import json
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

SHAPES = Path(__file__).with_name("tiny.shapes.json")

MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.6.0",
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}

SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}

UNET = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "attention_head_dim": 4,
    "block_out_channels": [32, 64, 64, 64],
    "center_input_sample": False,
    "cross_attention_dim": 32,
    "down_block_types": [
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "DownBlock2D",
    ],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 1,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 16,
    "out_channels": 4,
    "sample_size": 8,
    "up_block_types": [
        "UpBlock2D",
        "CrossAttnUpBlock2D",
        "CrossAttnUpBlock2D",
        "CrossAttnUpBlock2D",
    ],
}

#: A UNet whose levels differ in heads, depth and number of layers, as SDXL's.
UNET_LISTS = {
    **UNET,
    "attention_head_dim": [2, 4],
    "block_out_channels": [32, 64],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "layers_per_block": [1, 2],
    "norm_num_groups": 4,
    "transformer_layers_per_block": [1, 2],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "use_linear_projection": True,
}

VAE = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "block_out_channels": [16, 16, 32, 32],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "out_channels": 3,
    "sample_size": 64,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}

TEXT_ENCODER = {
    "_name_or_path": "openai/clip-vit-large-patch14",
    "architectures": ["CLIPTextModel"],
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dropout": 0.0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 32,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 64,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "pad_token_id": 1,
    "projection_dim": 32,
    "torch_dtype": "float32",
    "transformers_version": "4.22.0.dev0",
    "vocab_size": 577,
}

MERGES = """
i n|t h|a n|e r|o n|r e|th e</w>|an d</w>|in g</w>|i n</w>|o f</w>|e r</w>|o n</w>|o r</w>|e s</w>
e d</w>|c a|ca t</w>|d o|do g</w>|p h|ph o|pho t|phot o</w>|p a|pa in|pain t|paint ing</w>
s u|su n|sun s|suns e|sunse t</w>|re d</w>|b l|bl u|blu e</w>|g re|gre e|gree n</w>|h o|ho u|hou s
hous e</w>|s e|se a</w>|s k|sk y</w>|o i|oi l</w>|w a|wa t|wat er</w>|t re|tre e</w>|l o|lo w</w>
h i|hi g|hig h</w>|1 2|' s</w>|Ã ©</w>
"""


def write_stable_diffusion(
    folder: Path, dtype: str = "float32", variant: str | None = None, vae_attention: str = "old"
) -> Path:
    """Writes a whole tiny Stable Diffusion 1.x checkpoint into `folder` and returns it.

    `vae_attention` picks the names of the VAE's attention: `old` (`query`, as Stable Diffusion
    1.5 is published), `convolution` (`query`, as 1x1 convolutions) or `new` (`to_q`).
    """
    folder = Path(folder)
    write_json(folder / "model_index.json", MODEL_INDEX)
    write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    write_tokenizer(folder / "tokenizer")
    suffix = f".{variant}" if variant else ""
    for name, config, stem in (
        ("unet", UNET, "diffusion_pytorch_model"),
        ("vae", VAE, "diffusion_pytorch_model"),
        ("text_encoder", TEXT_ENCODER, "model"),
    ):
        write_json(folder / name / "config.json", config)
        tensors = weights(name, vae_attention)
        tensors = {k: v.astype(dtype) if v.dtype == np.float32 else v for k, v in tensors.items()}
        save_file(tensors, folder / name / f"{stem}{suffix}.safetensors", {"format": "pt"})
    return folder


def weights(component: str, vae_attention: str = "old") -> dict[str, np.ndarray]:
    """The weights of one component of the tiny checkpoint under their published names."""
    shapes = json.loads(SHAPES.read_text())[component]
    tensors = {key: draw(key, shape) for key, shape in shapes.items()}
    if component == "vae" and vae_attention != "new":
        tensors = dict(old_attention(k, v, vae_attention) for k, v in tensors.items())
    if component == "text_encoder":
        tensors["text_model.embeddings.position_ids"] = np.arange(77, dtype=np.int64)[None]
    return tensors


def draw(key: str, shape: list[int]) -> np.ndarray:
    """Numbers that keep activations spread: each layer changes its output by about its input."""
    numbers = normal(key, shape)
    if len(shape) == 1:
        return 1 + 0.2 * numbers if key.endswith("weight") else 0.2 * numbers
    if "embeddings." in key:
        return numbers * np.float32(0.5)
    gain = 2.0 if any(part in key for part in (".to_q.", ".to_k.", "q_proj", "k_proj")) else 1.2
    return numbers * np.float32(gain / math.sqrt(math.prod(shape[1:])))


def normal(name: str, shape: Sequence[int]) -> np.ndarray:
    """Standard normal float32 numbers that depend on the name alone."""
    generator = np.random.Generator(np.random.Philox(zlib.crc32(name.encode())))
    return generator.standard_normal(shape, dtype=np.float32)


def old_attention(key: str, value: np.ndarray, form: str) -> tuple[str, np.ndarray]:
    """One VAE weight under the names used before diffusers 0.18."""
    olds = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for new, old in olds.items():
        if f".attentions.0.{new}." in key:
            key = key.replace(f".{new}.", f".{old}.")
            if form == "convolution" and value.ndim == 2:
                value = np.ascontiguousarray(value[:, :, None, None])
    return key, value


def write_tokenizer(folder: Path) -> None:
    """A byte-level BPE tokenizer as CLIP's: 256 bytes, 256 word-final bytes, merges, specials."""
    alphabet = byte_alphabet()
    merges = MERGES.strip().replace("\n", "|").split("|")
    pieces = [merge.replace(" ", "") for merge in merges]
    specials = ["<|startoftext|>", "<|endoftext|>"]
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), *pieces, *specials]
    write_json(folder / "vocab.json", {token: i for i, token in enumerate(tokens)})
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), "utf-8")
    special = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    start = {"content": "<|startoftext|>", **special}
    end = {"content": "<|endoftext|>", **special}
    names = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": "<|endoftext|>"}
    write_json(folder / "special_tokens_map.json", names)
    config = {
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": 77,
        "name_or_path": "openai/clip-vit-large-patch14",
        "tokenizer_class": "CLIPTokenizer",
        **{
            k: {"__type": "AddedToken", **v} if isinstance(v, dict) else v for k, v in names.items()
        },
    }
    write_json(folder / "tokenizer_config.json", config)


def byte_alphabet() -> list[str]:
    """The 256 printable characters that stand for bytes in CLIP's vocabulary, in its order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(b) for b in printable] + [chr(0x100 + i) for i in range(256 - len(printable))]


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2), "utf-8")
