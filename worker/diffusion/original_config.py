"""Configurations as diffusers' layout has them, from the shapes in a file that has none.

Shapes are given by the names of the original code. What no shape tells (the number of heads, of
groups, the activation) is what every published checkpoint of that kind has.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from worker.diffusion.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]

#: Channels of a head in Stable Diffusion 2.x and XL, and in all CLIP text encoders.
HEAD_CHANNELS = 64
#: Heads at every level of Stable Diffusion 1.x.
HEADS = 8


def unet_config(shapes: Shapes) -> dict[str, Any]:
    """The UNet's, without what the conditions of its family add."""
    levels: list[list[int]] = [[]]
    for block in range(1, count(shapes, r"input_blocks\.(\d+)\.")):
        if f"input_blocks.{block}.0.op.weight" in shapes:
            levels.append([])
        else:
            levels[-1].append(block)
    if not all(levels):
        raise CheckpointError("the unet has a level without residual blocks.")
    first = [level[0] for level in levels]
    channels = [size(shapes, f"input_blocks.{i}.0.in_layers.2.weight", 0) for i in first]
    depths = [count(shapes, rf"input_blocks\.{i}\.1\.transformer_blocks\.(\d+)\.") for i in first]
    middle = count(shapes, r"middle_block\.1\.transformer_blocks\.(\d+)\.")
    projection = shape(shapes, "middle_block.1.proj_in.weight")
    linear = len(projection) == 2
    key = "middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    return {
        "_class_name": "UNet2DConditionModel",
        "in_channels": size(shapes, "input_blocks.0.0.weight", 1),
        "out_channels": size(shapes, "out.2.weight", 0),
        "block_out_channels": channels,
        "layers_per_block": [len(level) for level in levels],
        "down_block_types": [f"{'CrossAttn' * bool(n)}DownBlock2D" for n in depths],
        "up_block_types": [f"{'CrossAttn' * bool(n)}UpBlock2D" for n in depths[::-1]],
        # The middle block is the last level's, which may have no other transformer.
        "transformer_layers_per_block": [n or 1 for n in depths[:-1]] + [depths[-1] or middle],
        "cross_attention_dim": size(shapes, key, 1),
        "attention_head_dim": [c // HEAD_CHANNELS for c in channels] if linear else HEADS,
        "use_linear_projection": linear,
    }


def added_conditions(shapes: Shapes, pooled: int, numbers: int) -> dict[str, Any]:
    """What Stable Diffusion XL's UNet adds to its time: a pooled text and so many numbers."""
    width = size(shapes, "label_emb.0.0.weight", 1)
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": (width - pooled) // numbers,
        "projection_class_embeddings_input_dim": width,
    }


def vae_config(shapes: Shapes) -> dict[str, Any]:
    levels = count(shapes, r"encoder\.down\.(\d+)\.")
    channels = [size(shapes, f"encoder.down.{i}.block.0.conv1.weight", 0) for i in range(levels)]
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": size(shapes, "encoder.conv_in.weight", 1),
        "out_channels": size(shapes, "decoder.conv_out.weight", 0),
        "latent_channels": size(shapes, "post_quant_conv.weight", 1),
        "block_out_channels": channels,
        "layers_per_block": count(shapes, r"encoder\.down\.0\.block\.(\d+)\."),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }


def clip_config(shapes: Shapes) -> dict[str, Any]:
    """That of CLIP's own text encoder, whose names are transformers'."""
    hidden = size(shapes, "text_model.embeddings.token_embedding.weight", 1)
    return {
        **text_config(hidden, hidden),
        "hidden_act": "quick_gelu",
        "vocab_size": size(shapes, "text_model.embeddings.token_embedding.weight", 0),
        "max_position_embeddings": size(
            shapes, "text_model.embeddings.position_embedding.weight", 0
        ),
        "intermediate_size": size(shapes, "text_model.encoder.layers.0.mlp.fc1.weight", 0),
        "num_hidden_layers": count(shapes, r"text_model\.encoder\.layers\.(\d+)\."),
    }


def open_clip_config(shapes: Shapes) -> dict[str, Any]:
    """That of a text encoder trained with OpenCLIP."""
    hidden = size(shapes, "token_embedding.weight", 1)
    return {
        **text_config(hidden, shapes.get("text_projection", (hidden, hidden))[-1]),
        "hidden_act": "gelu",
        "vocab_size": size(shapes, "token_embedding.weight", 0),
        "max_position_embeddings": size(shapes, "positional_embedding", 0),
        "intermediate_size": size(shapes, "transformer.resblocks.0.mlp.c_fc.weight", 0),
        "num_hidden_layers": count(shapes, r"transformer\.resblocks\.(\d+)\."),
    }


def text_config(hidden: int, projection: int) -> dict[str, Any]:
    return {
        "model_type": "clip_text_model",
        "hidden_size": hidden,
        "num_attention_heads": hidden // HEAD_CHANNELS,
        "projection_dim": projection,
        # As all published files say: the text ends at the largest token id.
        "eos_token_id": 2,
    }


def count(keys: Iterable[str], pattern: str) -> int:
    """One more than the largest number that the pattern finds in the keys' beginnings."""
    found = (re.match(pattern, key) for key in keys)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def shape(shapes: Shapes, key: str) -> tuple[int, ...]:
    if key not in shapes:
        raise CheckpointError(f"{key} is missing.")
    return shapes[key]


def size(shapes: Shapes, key: str, axis: int) -> int:
    lengths = shape(shapes, key)
    if len(lengths) <= axis:
        raise CheckpointError(f"{key} has the shape {list(lengths)}, with no axis {axis}.")
    return lengths[axis]
