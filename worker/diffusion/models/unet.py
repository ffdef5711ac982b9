"""The denoising UNet of Stable Diffusion (https://arxiv.org/abs/2112.10752)."""

import math
from dataclasses import dataclass, field
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from worker.diffusion.layers import Conv2d, GroupNorm, Linear
from worker.diffusion.models.config import divides, read_config, require
from worker.diffusion.models.levels import DownBlock, MidBlock, UpBlock
from worker.diffusion.models.unet_level import UNetLevel

#: Fields that change the network, each with the values that leave it as it is built here.
FIXED = {
    "act_fn": ("silu", "swish"),
    "addition_embed_type": (None, "text_time"),
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "class_embeddings_concat": (False,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "cross_attention_norm": (None,),
    "downsample_padding": (1,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "mid_block_only_cross_attention": (None, False),
    "mid_block_scale_factor": (1,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "num_attention_heads": (None,),
    "num_class_embeds": (None,),
    "only_cross_attention": (False,),
    "resnet_out_scale_factor": (1,),
    "resnet_skip_time_act": (False,),
    "resnet_time_scale_shift": ("default",),
    "reverse_transformer_layers_per_block": (None,),
    "time_cond_proj_dim": (None,),
    "time_embedding_act_fn": (None,),
    "time_embedding_dim": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
}

#: Fields of which a null says as much as their absence.
OPTIONAL = (
    "addition_embed_type",
    "addition_time_embed_dim",
    "projection_class_embeddings_input_dim",
    "upcast_attention",
)

DOWN_BLOCKS = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}
UP_BLOCKS = {"CrossAttnUpBlock2D": True, "UpBlock2D": False}


@dataclass(frozen=True)
class UNetConfig:
    """The fields of a UNet's `config.json` that are read here; lists have one entry a level."""

    in_channels: int = 4
    out_channels: int = 4
    flip_sin_to_cos: bool = True
    freq_shift: float = 0.0
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: tuple[int, ...] = (2, 2, 2, 2)
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    cross_attention_dim: tuple[int, ...] = (1280, 1280, 1280, 1280)
    #: Zero where a level has no transformers, in some files.
    transformer_layers_per_block: tuple[int, ...] = field(
        default=(1, 1, 1, 1), metadata={"least": 0}
    )
    #: The number of heads, in spite of its name.
    attention_head_dim: tuple[int, ...] = (8, 8, 8, 8)
    use_linear_projection: bool = False
    upcast_attention: bool = False
    #: What the time embedding is told besides: nothing, or SDXL's pooled text and numbers.
    addition_embed_type: str = ""
    addition_time_embed_dim: int = 256
    projection_class_embeddings_input_dim: int = 2816

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "UNetConfig":
        """Raises CheckpointError for a value that asks for another network than is built here."""
        given = {k: v for k, v in config.items() if v is not None or k not in OPTIONAL}
        values = read_config(cls, given, FIXED, "unet")
        require(values["down_block_types"], DOWN_BLOCKS, "unet down_block_types")
        require(values["up_block_types"], UP_BLOCKS, "unet up_block_types")
        channels = values["block_out_channels"]
        divides(values["norm_num_groups"], channels, "unet norm_num_groups")
        for heads, count in zip(values["attention_head_dim"], channels, strict=True):
            divides(heads, [count], "unet attention_head_dim (the number of heads)")
        return cls(**values)


class UNet(nn.Cell):
    """Predicts what the scheduler asks for from noisy latents.

    latents (n, in_channels, h, w) of any h and w, timesteps (n,) float32, context
    (n, t, cross_attention_dim) to (n, out_channels, h, w). With `addition_embed_type` "text_time"
    (https://arxiv.org/abs/2307.01952) also a pooled text (n, c) and numbers such as the picture's
    size, time_ids (n, k) float32.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.block_out_channels
        self.conv_in = Conv2d(config.in_channels, channels[0])
        self.time_embedding = TimestepEmbedding(channels[0], 4 * channels[0])
        self.frequencies = frequencies(channels[0], config.freq_shift)
        self.adds = config.addition_embed_type == "text_time"
        if self.adds:
            self.add_embedding = TimestepEmbedding(
                config.projection_class_embeddings_input_dim, 4 * channels[0]
            )
            self.add_frequencies = frequencies(config.addition_time_embed_dim, config.freq_shift)

        levels = [self._level(i) for i in range(len(channels))]
        skips = [[channels[0]]]
        downs = []
        for i, level in enumerate(levels):
            above, last = channels[max(i - 1, 0)], i == len(levels) - 1
            layers = config.layers_per_block[i]
            attends = DOWN_BLOCKS[config.down_block_types[i]]
            downs.append(DownBlock(level, above, layers, attends, downsamples=not last))
            skips[-1] += [level.channels] * layers
            if not last:
                skips.append([level.channels])
        self.down_blocks = nn.CellList(downs)
        self.mid_block = MidBlock(levels[-1])

        ups = []
        below = channels[-1]
        for i, level in enumerate(reversed(levels)):
            attends = UP_BLOCKS[config.up_block_types[i]]
            last = i == len(levels) - 1
            ups.append(UpBlock(level, below, skips.pop()[::-1], attends, upsamples=not last))
            below = level.channels
        self.up_blocks = nn.CellList(ups)

        self.conv_norm_out = GroupNorm(config.norm_num_groups, channels[0], config.norm_eps)
        self.conv_out = Conv2d(channels[0], config.out_channels)

    def _level(self, i: int) -> UNetLevel:
        config = self.config
        return UNetLevel(
            channels=config.block_out_channels[i],
            time_channels=4 * config.block_out_channels[0],
            context_channels=config.cross_attention_dim[i],
            heads=config.attention_head_dim[i],
            transformer_layers=config.transformer_layers_per_block[i],
            linear_projection=config.use_linear_projection,
            upcast_attention=config.upcast_attention,
            groups=config.norm_num_groups,
            eps=config.norm_eps,
        )

    def construct(
        self,
        latents: Tensor,
        timesteps: Tensor,
        context: Tensor,
        pooled: Any = None,
        time_ids: Any = None,
    ) -> Tensor:
        dtype = latents.dtype
        time = self.time_embedding(self.sinusoid(timesteps, self.frequencies, dtype))
        if self.adds:
            numbers = self.sinusoid(time_ids, self.add_frequencies, dtype)
            numbers = ops.reshape(numbers, (time_ids.shape[0], -1))
            time = time + self.add_embedding(ops.concat((pooled, numbers), 1))
        # Once, for all the residual blocks that begin with it.
        time = ops.silu(time)
        x = self.conv_in(latents)
        states = (x,)
        for block in self.down_blocks:
            x, skips = block(x, time, context)
            states = (*states, *skips)
        x = self.mid_block(x, time, context)
        for block in self.up_blocks:
            count = len(block.resnets)
            skips, states = states[-count:], states[:-count]
            size = states[-1].shape[2:] if len(states) > 0 else None
            x = block(x, skips, time, context, size)
        return self.conv_out(ops.silu(self.conv_norm_out(x)))

    def sinusoid(self, numbers: Tensor, frequencies: Tensor, dtype: ms.dtype) -> Tensor:
        """n numbers and (1, c / 2) frequencies to (n, c)."""
        angles = ops.reshape(numbers, (-1, 1)) * frequencies
        sin, cos = ops.sin(angles), ops.cos(angles)
        halves = (cos, sin) if self.config.flip_sin_to_cos else (sin, cos)
        return ops.cast(ops.concat(halves, 1), dtype)


class TimestepEmbedding(nn.Cell):
    """(n, in_channels) to (n, channels)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.linear_1 = Linear(in_channels, channels)
        self.linear_2 = Linear(channels, channels)

    def construct(self, x: Tensor) -> Tensor:
        return self.linear_2(ops.silu(self.linear_1(x)))


def frequencies(channels: int, shift: float) -> Tensor:
    """(1, channels / 2), from 1 down to about 1 / 10000 (https://arxiv.org/abs/1706.03762)."""
    half = channels // 2
    exponents = np.float32(-math.log(10000)) * np.arange(half, dtype=np.float32) / (half - shift)
    return Tensor(np.exp(exponents.astype(np.float32))[None])
