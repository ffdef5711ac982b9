"""MoVQ, Kandinsky's autoencoder between images and latents (https://arxiv.org/abs/2209.09002)."""

from dataclasses import dataclass
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from worker.diffusion.layers import Conv2d, Embedding, GroupNorm, nearest_upsample
from worker.diffusion.models.config import divides, read_config, require
from worker.diffusion.models.resnet import Downsample2D, Upsample2D
from worker.diffusion.models.transformer import Attention, feature_map, tokens
from worker.diffusion.models.vae import (
    EPS,
    AutoencoderConfig,
    MidBlock,
    SpatialAttention,
    resnets,
)

#: The groups of every norm of the decoder, whatever the configuration says of the encoder's.
SPATIAL_GROUPS = 32

FIXED = {
    "act_fn": ("silu", "swish"),
    "lookup_from_codebook": (False,),
    "mid_block_add_attention": (True,),
    "norm_type": ("spatial",),
}

DOWN_BLOCKS = {"DownEncoderBlock2D": False, "AttnDownEncoderBlock2D": True}
UP_BLOCKS = {"UpDecoderBlock2D": False, "AttnUpDecoderBlock2D": True}


@dataclass(frozen=True)
class MovqConfig(AutoencoderConfig):
    """The fields of a MoVQ's `config.json` that are read here."""

    latent_channels: int = 3
    num_vq_embeddings: int = 256

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "MovqConfig":
        """Raises CheckpointError for a value that asks for another network than is built here."""
        # What their absence means is another network.
        values = read_config(cls, {"norm_type": "group", **config}, FIXED, "movq")
        embedded = config.get("vq_embed_dim") or values["latent_channels"]
        require([embedded], [values["latent_channels"]], "movq vq_embed_dim")
        require(values["down_block_types"], DOWN_BLOCKS, "movq down_block_types")
        require(values["up_block_types"], UP_BLOCKS, "movq up_block_types")
        divides(values["norm_num_groups"], values["block_out_channels"], "movq norm_num_groups")
        divides(SPATIAL_GROUPS, values["block_out_channels"], "movq's number of groups")
        return cls(**values)


class Movq:
    """Encoder and decoder, two cells so that each is loaded and compiled as it is needed.

    Latents are neither scaled nor, as diffusion works on them, replaced by entries of the codebook.
    """

    def __init__(self, config: MovqConfig, dtype: ms.dtype = ms.float32) -> None:
        self.config = config
        self.dtype = dtype
        self.encoder = MovqEncoder(config)
        self.decoder = MovqDecoder(config)

    def encode(self, pixels: Tensor) -> Tensor:
        """Latents (n, latent_channels, H / 8, W / 8) of pixels (n, 3, H, W) in -1..1."""
        return self.encoder(pixels.astype(self.dtype))

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels (n, 3, H, W), about -1..1."""
        return self.decoder(latents.astype(self.dtype))


class MovqEncoder(nn.Cell):
    def __init__(self, config: MovqConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.quant_conv = Conv2d(config.latent_channels, config.latent_channels, 1)
        self.quantize = Codebook(config)

    def construct(self, pixels: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(pixels))


class Codebook(nn.Cell):
    """A part of every checkpoint, which is read, and which diffusion does not use."""

    def __init__(self, config: MovqConfig) -> None:
        super().__init__()
        self.embedding = Embedding(config.num_vq_embeddings, config.latent_channels)


class MovqDecoder(nn.Cell):
    def __init__(self, config: MovqConfig) -> None:
        super().__init__()
        self.post_quant_conv = Conv2d(config.latent_channels, config.latent_channels, 1)
        self.decoder = Decoder(config)

    def construct(self, latents: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(latents), latents)


class Encoder(nn.Cell):
    def __init__(self, config: MovqConfig) -> None:
        super().__init__()
        channels, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = Conv2d(config.in_channels, channels[0])
        blocks = []
        for i, (a, b) in enumerate(zip((channels[0], *channels[:-1]), channels, strict=True)):
            attends = DOWN_BLOCKS[config.down_block_types[i]]
            last = i == len(channels) - 1
            blocks.append(DownBlock(a, b, config.layers_per_block, groups, attends, not last))
        self.down_blocks = nn.CellList(blocks)
        self.mid_block = MidBlock(channels[-1], groups)
        self.conv_norm_out = GroupNorm(groups, channels[-1], EPS)
        self.conv_out = Conv2d(channels[-1], config.latent_channels)

    def construct(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        x = self.mid_block(x)
        return self.conv_out(ops.silu(self.conv_norm_out(x)))


class DownBlock(nn.Cell):
    def __init__(
        self,
        in_channels: int,
        channels: int,
        layers: int,
        groups: int,
        attends: bool,
        downsamples: bool,
    ) -> None:
        super().__init__()
        self.resnets = resnets(in_channels, channels, layers, groups)
        self.attends = attends
        if attends:
            self.attentions = nn.CellList(
                [SpatialAttention(channels, groups) for _ in range(layers)]
            )
        self.downsamples = downsamples
        if downsamples:
            # Pads below and at the right only: (top, bottom, left, right).
            self.downsamplers = nn.CellList([Downsample2D(channels, padding=(0, 1, 0, 1))])

    def construct(self, x: Tensor) -> Tensor:
        for i in range(len(self.resnets)):
            x = self.resnets[i](x)
            if self.attends:
                x = self.attentions[i](x)
        return self.downsamplers[0](x) if self.downsamples else x


class Decoder(nn.Cell):
    """From a feature map, each norm told of the latents, which grow as it does."""

    def __init__(self, config: MovqConfig) -> None:
        super().__init__()
        channels, told = config.block_out_channels[::-1], config.latent_channels
        self.conv_in = Conv2d(config.latent_channels, channels[0])
        self.mid_block = SpatialMidBlock(channels[0], told)
        blocks = []
        for i, (a, b) in enumerate(zip((channels[0], *channels[:-1]), channels, strict=True)):
            attends = UP_BLOCKS[config.up_block_types[i]]
            last = i == len(channels) - 1
            blocks.append(UpBlock(a, b, config.layers_per_block + 1, told, attends, not last))
        self.up_blocks = nn.CellList(blocks)
        self.conv_norm_out = SpatialNorm(channels[-1], told)
        self.conv_out = Conv2d(channels[-1], config.out_channels)

    def construct(self, x: Tensor, latents: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(x), latents)
        for block in self.up_blocks:
            x = block(x, latents)
            if block.upsamples:
                latents = nearest_upsample(latents)
        return self.conv_out(ops.silu(self.conv_norm_out(x, latents)))


class SpatialNorm(nn.Cell):
    """A group norm whose scale and shift follow the latents at each place."""

    def __init__(self, channels: int, told: int) -> None:
        super().__init__()
        self.norm_layer = GroupNorm(SPATIAL_GROUPS, channels, EPS)
        self.conv_y = Conv2d(told, channels, 1)
        self.conv_b = Conv2d(told, channels, 1)

    def construct(self, x: Tensor, latents: Tensor) -> Tensor:
        return self.norm_layer(x) * self.conv_y(latents) + self.conv_b(latents)


class SpatialResnet(nn.Cell):
    """Two convolutions around a residual, with spatial norms."""

    def __init__(self, in_channels: int, channels: int, told: int) -> None:
        super().__init__()
        self.norm1 = SpatialNorm(in_channels, told)
        self.conv1 = Conv2d(in_channels, channels)
        self.norm2 = SpatialNorm(channels, told)
        self.conv2 = Conv2d(channels, channels)
        changes = in_channels != channels
        self.conv_shortcut = Conv2d(in_channels, channels, 1) if changes else None

    def construct(self, x: Tensor, latents: Tensor) -> Tensor:
        y = self.conv1(ops.silu(self.norm1(x, latents)))
        y = self.conv2(ops.silu(self.norm2(y, latents)))
        return y + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class SpatialNormAttention(Attention):
    """Residual self-attention of one head over the positions of (n, c, h, w)."""

    def __init__(self, channels: int, told: int) -> None:
        super().__init__(channels, heads=1, bias=True)
        self.spatial_norm = SpatialNorm(channels, told)

    def construct(self, x: Tensor, latents: Tensor) -> Tensor:  # type: ignore[override]
        y = tokens(self.spatial_norm(x, latents))
        y = self.to_out[0](self.attend(self.to_q(y), self.to_k(y), self.to_v(y)))
        return x + feature_map(y, x.shape)


class SpatialMidBlock(nn.Cell):
    def __init__(self, channels: int, told: int) -> None:
        super().__init__()
        self.resnets = nn.CellList([SpatialResnet(channels, channels, told) for _ in range(2)])
        self.attentions = nn.CellList([SpatialNormAttention(channels, told)])

    def construct(self, x: Tensor, latents: Tensor) -> Tensor:
        x = self.attentions[0](self.resnets[0](x, latents), latents)
        return self.resnets[1](x, latents)


class UpBlock(nn.Cell):
    def __init__(
        self,
        in_channels: int,
        channels: int,
        layers: int,
        told: int,
        attends: bool,
        upsamples: bool,
    ) -> None:
        super().__init__()
        inputs = [in_channels] + [channels] * (layers - 1)
        self.resnets = nn.CellList([SpatialResnet(c, channels, told) for c in inputs])
        self.attends = attends
        if attends:
            self.attentions = nn.CellList([SpatialNormAttention(channels, told) for _ in inputs])
        self.upsamples = upsamples
        if upsamples:
            self.upsamplers = nn.CellList([Upsample2D(channels)])

    def construct(self, x: Tensor, latents: Tensor) -> Tensor:
        for i in range(len(self.resnets)):
            x = self.resnets[i](x, latents)
            if self.attends:
                x = self.attentions[i](x, latents)
        return self.upsamplers[0](x) if self.upsamples else x
