"""A level of the UNet: residual blocks, with transformers where the name says CrossAttn."""

from dataclasses import dataclass
from typing import ClassVar

from worker.diffusion.models.resnet import Downsample2D, ResnetBlock2D, Upsample2D
from worker.diffusion.models.transformer import Transformer2DModel


@dataclass(frozen=True)
class UNetLevel:
    """What the blocks of one level of the UNet share."""

    resizes_in_time: ClassVar[bool] = False
    channels: int
    time_channels: int
    context_channels: int
    heads: int
    transformer_layers: int
    linear_projection: bool
    upcast_attention: bool
    groups: int
    eps: float

    def resnet(self, in_channels: int) -> ResnetBlock2D:
        return ResnetBlock2D(in_channels, self.channels, self.groups, self.eps, self.time_channels)

    def attention(self) -> Transformer2DModel:
        return Transformer2DModel(
            self.channels,
            self.heads,
            self.context_channels,
            self.transformer_layers,
            self.groups,
            self.linear_projection,
            self.upcast_attention,
        )

    def halve(self) -> Downsample2D:
        return Downsample2D(self.channels, padding=1)

    def double(self) -> Upsample2D:
        return Upsample2D(self.channels)
