"""The denoising UNet of Kandinsky 2.2 (https://arxiv.org/abs/2310.03502)."""

from dataclasses import dataclass
from typing import Any

from mindspore import Tensor, nn, ops

from worker.diffusion.layers import Conv2d, GroupNorm, LayerNorm, Linear
from worker.diffusion.models.config import divides, read_config, require
from worker.diffusion.models.kandinsky_level import KandinskyLevel
from worker.diffusion.models.levels import DownBlock, MidBlock, UpBlock
from worker.diffusion.models.unet import FIXED as SHARED
from worker.diffusion.models.unet import TimestepEmbedding, frequencies

#: Fields that change the network, each with the values that ask for it as it is built here.
FIXED = {
    **SHARED,
    "addition_embed_type": ("image",),
    "encoder_hid_dim_type": ("image_proj",),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "mid_block_type": ("UNetMidBlock2DSimpleCrossAttn",),
    "resnet_time_scale_shift": ("scale_shift",),
}
# Named so for other networks, and of no meaning here.
FIXED.pop("downsample_padding")
FIXED.pop("encoder_hid_dim")

DOWN_BLOCKS = {"ResnetDownsampleBlock2D": False, "SimpleCrossAttnDownBlock2D": True}
UP_BLOCKS = {"ResnetUpsampleBlock2D": False, "SimpleCrossAttnUpBlock2D": True}

#: What an image's embedding becomes for the attention.
IMAGE_TOKENS = 32


@dataclass(frozen=True)
class KandinskyUNetConfig:
    """The fields of the UNet's `config.json` that are read here."""

    in_channels: int = 4
    out_channels: int = 4
    down_block_types: tuple[str, ...] = ("SimpleCrossAttnDownBlock2D",)
    up_block_types: tuple[str, ...] = ("SimpleCrossAttnUpBlock2D",)
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    cross_attention_dim: int = 1280
    #: The channels of a head, as its name says.
    attention_head_dim: int = 8
    encoder_hid_dim: int = 1280

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "KandinskyUNetConfig":
        """Raises CheckpointError for a value that asks for another network than is built here."""
        # What their absence means is another network.
        for key in ("addition_embed_type", "encoder_hid_dim_type", "resnet_time_scale_shift"):
            require([config.get(key)], FIXED[key], f"unet {key}")
        values = read_config(cls, config, FIXED, "unet")
        require(values["down_block_types"], DOWN_BLOCKS, "unet down_block_types")
        require(values["up_block_types"], UP_BLOCKS, "unet up_block_types")
        divides(values["norm_num_groups"], values["block_out_channels"], "unet norm_num_groups")
        divides(
            values["attention_head_dim"], values["block_out_channels"], "unet attention_head_dim"
        )
        return cls(**values)

    @property
    def downscale(self) -> int:
        """Height and width of the latents must be multiples of it."""
        return 2 ** (len(self.block_out_channels) - 1)


class KandinskyUNet(nn.Cell):
    """Predicts noise, and how much of it to add, from noisy latents and an image's embedding.

    latents (n, in_channels, h, w), timesteps (n,) float32, image (n, encoder_hid_dim) to
    (n, out_channels, h, w).
    """

    def __init__(self, config: KandinskyUNetConfig) -> None:
        super().__init__()
        self.config = config
        channels, layers = config.block_out_channels, config.layers_per_block
        time_channels = 4 * channels[0]
        self.conv_in = Conv2d(config.in_channels, channels[0])
        self.frequencies = frequencies(channels[0], shift=0)
        self.time_embedding = TimestepEmbedding(channels[0], time_channels)
        self.add_embedding = ImageTimeEmbedding(config.encoder_hid_dim, time_channels)
        self.encoder_hid_proj = ImageProjection(config.encoder_hid_dim, config.cross_attention_dim)

        levels = [
            KandinskyLevel(
                channels=count,
                time_channels=time_channels,
                context_channels=config.cross_attention_dim,
                heads=count // config.attention_head_dim,
                groups=config.norm_num_groups,
                eps=config.norm_eps,
            )
            for count in channels
        ]
        skips = [channels[0]]
        downs = []
        for i, level in enumerate(levels):
            last = i == len(levels) - 1
            attends = DOWN_BLOCKS[config.down_block_types[i]]
            downs.append(DownBlock(level, skips[-1], layers, attends, downsamples=not last))
            skips += [level.channels] * (layers + (not last))
        self.down_blocks = nn.CellList(downs)
        self.mid_block = MidBlock(levels[-1])

        ups = []
        below = channels[-1]
        for i, level in enumerate(reversed(levels)):
            read = [skips.pop() for _ in range(layers + 1)]
            attends = UP_BLOCKS[config.up_block_types[i]]
            ups.append(UpBlock(level, below, read, attends, upsamples=i < len(levels) - 1))
            below = level.channels
        self.up_blocks = nn.CellList(ups)

        self.conv_norm_out = GroupNorm(config.norm_num_groups, channels[0], config.norm_eps)
        self.conv_out = Conv2d(channels[0], config.out_channels)

    def construct(self, latents: Tensor, timesteps: Tensor, image: Tensor) -> Tensor:
        angles = ops.reshape(timesteps, (-1, 1)) * self.frequencies
        sinusoid = ops.cast(ops.concat((ops.cos(angles), ops.sin(angles)), 1), latents.dtype)
        # The SiLU that every residual block begins with, once for all of them.
        time = ops.silu(self.time_embedding(sinusoid) + self.add_embedding(image))
        context = self.encoder_hid_proj(image)
        x = self.conv_in(latents)
        states = (x,)
        for block in self.down_blocks:
            x, skips = block(x, time, context)
            states = (*states, *skips)
        x = self.mid_block(x, time, context)
        for block in self.up_blocks:
            count = len(block.resnets)
            skips, states = states[-count:], states[:-count]
            x = block(x, skips, time, context, None)
        return self.conv_out(ops.silu(self.conv_norm_out(x)))


class ImageTimeEmbedding(nn.Cell):
    """(n, image_channels) to what joins the time embedding, (n, channels)."""

    def __init__(self, image_channels: int, channels: int) -> None:
        super().__init__()
        self.image_proj = Linear(image_channels, channels)
        self.image_norm = LayerNorm(channels)

    def construct(self, image: Tensor) -> Tensor:
        return self.image_norm(self.image_proj(image))


class ImageProjection(nn.Cell):
    """(n, image_channels) to the context of the attention, (n, 32, channels)."""

    def __init__(self, image_channels: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.image_embeds = Linear(image_channels, IMAGE_TOKENS * channels)
        self.norm = LayerNorm(channels)

    def construct(self, image: Tensor) -> Tensor:
        context = ops.reshape(self.image_embeds(image), (-1, IMAGE_TOKENS, self.channels))
        return self.norm(context)
