"""The autoencoder between images and latents (https://arxiv.org/abs/2112.10752)."""

from dataclasses import dataclass, field
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from worker.diffusion.layers import Conv2d, GroupNorm
from worker.diffusion.models.config import divides, read_config, require
from worker.diffusion.models.resnet import Downsample2D, ResnetBlock2D, Upsample2D
from worker.diffusion.models.transformer import Attention, feature_map, tokens

#: The epsilon of every norm of the autoencoder; no configuration names it.
EPS = 1e-6

FIXED = {
    "act_fn": ("silu", "swish"),
    "latents_mean": (None,),
    "latents_std": (None,),
    "mid_block_add_attention": (True,),
    "shift_factor": (None,),
    "use_post_quant_conv": (True,),
    "use_quant_conv": (True,),
}


@dataclass(frozen=True)
class AutoencoderConfig:
    """The fields that every autoencoder's `config.json` has."""

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",)
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_num_groups: int = 32

    @property
    def downscale(self) -> int:
        """Pixels for each latent position along one axis."""
        return 2 ** (len(self.block_out_channels) - 1)


@dataclass(frozen=True)
class VaeConfig(AutoencoderConfig):
    """The fields of a KL autoencoder's `config.json` that are read here."""

    scaling_factor: float = 0.18215
    #: Half precision is too narrow for it. Left out of the fingerprint: the latents are the same.
    force_upcast: bool = field(default=False, repr=False)

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> "VaeConfig":
        """Raises CheckpointError for a value that asks for another network than is built here."""
        values = read_config(cls, config, FIXED, "vae")
        require(values["down_block_types"], ("DownEncoderBlock2D",), "vae down_block_types")
        require(values["up_block_types"], ("UpDecoderBlock2D",), "vae up_block_types")
        divides(values["norm_num_groups"], values["block_out_channels"], "vae norm_num_groups")
        return cls(**values)


class Vae:
    """Encoder and decoder, two cells so that each is loaded and compiled as it is needed.

    Both take float32 and give `dtype`, in which they compute.
    """

    def __init__(self, config: VaeConfig, dtype: ms.dtype = ms.float32) -> None:
        self.config = config
        self.dtype = dtype
        self.encoder = VaeEncoder(config)
        self.decoder = VaeDecoder(config)

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latents, each (n, latent_channels, H / 8, W / 8).

        Pixels (n, 3, H, W) lie in -1..1. The latents are not scaled by `scaling_factor`.
        """
        return self.encoder(pixels.astype(self.dtype))

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels (n, 3, H, W), about -1..1, of latents that `scaling_factor` was divided out of."""
        return self.decoder(latents.astype(self.dtype))


class VaeEncoder(nn.Cell):
    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        moments = 2 * config.latent_channels
        self.latent_channels = config.latent_channels
        self.encoder = Encoder(config)
        self.quant_conv = Conv2d(moments, moments, 1)

    def construct(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        moments = self.quant_conv(self.encoder(pixels))
        mean = moments[:, : self.latent_channels]
        logvar = moments[:, self.latent_channels :]
        return mean, ops.clamp(logvar, -30.0, 20.0)


class VaeDecoder(nn.Cell):
    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.post_quant_conv = Conv2d(config.latent_channels, config.latent_channels, 1)
        self.decoder = Decoder(config)

    def construct(self, latents: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(latents))


class Encoder(nn.Cell):
    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        channels = config.block_out_channels
        groups = config.norm_num_groups
        self.conv_in = Conv2d(config.in_channels, channels[0])
        inputs = [channels[0], *channels[:-1]]
        self.down_blocks = nn.CellList(
            [
                DownBlock(a, b, config.layers_per_block, groups, downsamples=i < len(channels) - 1)
                for i, (a, b) in enumerate(zip(inputs, channels, strict=True))
            ]
        )
        self.mid_block = MidBlock(channels[-1], groups)
        self.conv_norm_out = GroupNorm(groups, channels[-1], EPS)
        self.conv_out = Conv2d(channels[-1], 2 * config.latent_channels)

    def construct(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        x = self.mid_block(x)
        return self.conv_out(ops.silu(self.conv_norm_out(x)))


class Decoder(nn.Cell):
    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        channels = config.block_out_channels[::-1]
        groups = config.norm_num_groups
        self.conv_in = Conv2d(config.latent_channels, channels[0])
        self.mid_block = MidBlock(channels[0], groups)
        inputs = [channels[0], *channels[:-1]]
        self.up_blocks = nn.CellList(
            [
                UpBlock(a, b, config.layers_per_block + 1, groups, upsamples=i < len(channels) - 1)
                for i, (a, b) in enumerate(zip(inputs, channels, strict=True))
            ]
        )
        self.conv_norm_out = GroupNorm(groups, channels[-1], EPS)
        self.conv_out = Conv2d(channels[-1], config.out_channels)

    def construct(self, x: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(ops.silu(self.conv_norm_out(x)))


def resnets(in_channels: int, channels: int, layers: int, groups: int) -> nn.CellList:
    inputs = [in_channels] + [channels] * (layers - 1)
    return nn.CellList([ResnetBlock2D(c, channels, groups, EPS) for c in inputs])


class DownBlock(nn.Cell):
    def __init__(
        self, in_channels: int, channels: int, layers: int, groups: int, downsamples: bool
    ) -> None:
        super().__init__()
        self.resnets = resnets(in_channels, channels, layers, groups)
        self.downsamples = downsamples
        if downsamples:
            # Pads below and at the right only: (top, bottom, left, right).
            self.downsamplers = nn.CellList([Downsample2D(channels, padding=(0, 1, 0, 1))])

    def construct(self, x: Tensor) -> Tensor:
        for resnet in self.resnets:
            x = resnet(x)
        return self.downsamplers[0](x) if self.downsamples else x


class UpBlock(nn.Cell):
    def __init__(
        self, in_channels: int, channels: int, layers: int, groups: int, upsamples: bool
    ) -> None:
        super().__init__()
        self.resnets = resnets(in_channels, channels, layers, groups)
        self.upsamples = upsamples
        if upsamples:
            self.upsamplers = nn.CellList([Upsample2D(channels)])

    def construct(self, x: Tensor) -> Tensor:
        for resnet in self.resnets:
            x = resnet(x)
        return self.upsamplers[0](x) if self.upsamples else x


class MidBlock(nn.Cell):
    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.resnets = resnets(channels, channels, 2, groups)
        self.attentions = nn.CellList([SpatialAttention(channels, groups)])

    def construct(self, x: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class SpatialAttention(Attention):
    """Residual self-attention of one head over the positions of (n, c, h, w)."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__(channels, heads=1, bias=True)
        self.group_norm = GroupNorm(groups, channels, EPS)

    def construct(self, x: Tensor) -> Tensor:  # type: ignore[override]
        y = tokens(self.group_norm(x))
        y = self.to_out[0](self.attend(self.to_q(y), self.to_k(y), self.to_v(y)))
        return x + feature_map(y, x.shape)
