"""The levels of the UNet: residual blocks, with transformers where the name says CrossAttn."""

from dataclasses import dataclass

from mindspore import Tensor, nn, ops

from worker.diffusion.models.resnet import Downsample2D, ResnetBlock2D, Upsample2D
from worker.diffusion.models.transformer import Transformer2DModel


@dataclass(frozen=True)
class Level:
    """What the blocks of one level of the UNet share."""

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

    def transformer(self) -> Transformer2DModel:
        return Transformer2DModel(
            self.channels,
            self.heads,
            self.context_channels,
            self.transformer_layers,
            self.groups,
            self.linear_projection,
            self.upcast_attention,
        )


class DownBlock(nn.Cell):
    """One level on the way down; returns its output and all the states that the way up reads."""

    def __init__(
        self, level: Level, in_channels: int, layers: int, attends: bool, downsamples: bool
    ) -> None:
        super().__init__()
        inputs = [in_channels] + [level.channels] * (layers - 1)
        self.resnets = nn.CellList([level.resnet(channels) for channels in inputs])
        self.attends = attends
        if attends:
            self.attentions = nn.CellList([level.transformer() for _ in inputs])
        self.downsamples = downsamples
        if downsamples:
            self.downsamplers = nn.CellList([Downsample2D(level.channels, padding=1)])

    def construct(
        self, x: Tensor, time: Tensor, context: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        skips: tuple[Tensor, ...] = ()
        for i in range(len(self.resnets)):
            x = self.resnets[i](x, time)
            if self.attends:
                x = self.attentions[i](x, context)
            skips = (*skips, x)
        if self.downsamples:
            x = self.downsamplers[0](x)
            skips = (*skips, x)
        return x, skips


class MidBlock(nn.Cell):
    """The lowest level: a transformer between two residual blocks."""

    def __init__(self, level: Level) -> None:
        super().__init__()
        self.resnets = nn.CellList([level.resnet(level.channels) for _ in range(2)])
        self.attentions = nn.CellList([level.transformer()])

    def construct(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        x = self.attentions[0](self.resnets[0](x, time), context)
        return self.resnets[1](x, time)


class UpBlock(nn.Cell):
    """One level on the way up, which reads one state of the way down before each residual block."""

    def __init__(
        self,
        level: Level,
        in_channels: int,
        skip_channels: list[int],
        attends: bool,
        upsamples: bool,
    ) -> None:
        super().__init__()
        inputs = [in_channels] + [level.channels] * (len(skip_channels) - 1)
        self.resnets = nn.CellList(
            [level.resnet(a + b) for a, b in zip(inputs, skip_channels, strict=True)]
        )
        self.attends = attends
        if attends:
            self.attentions = nn.CellList([level.transformer() for _ in inputs])
        self.upsamples = upsamples
        if upsamples:
            self.upsamplers = nn.CellList([Upsample2D(level.channels)])

    def construct(
        self,
        x: Tensor,
        skips: tuple[Tensor, ...],
        time: Tensor,
        context: Tensor,
        size: tuple[int, int] | None,
    ) -> Tensor:
        """`skips` are read from the last to the first; `size` is that of the level above."""
        for i in range(len(self.resnets)):
            x = self.resnets[i](ops.concat((x, skips[-1 - i]), 1), time)
            if self.attends:
                x = self.attentions[i](x, context)
        if self.upsamples:
            x = self.upsamplers[0](x, size)
        return x
