"""The levels of a UNet: residual blocks, each followed by an attention where the level attends."""

from typing import ClassVar, Protocol

from mindspore import Tensor, nn, ops


class Level(Protocol):
    """What the blocks of one level share, and the cells that they are made of."""

    #: Whether what changes the size is told the time, as a residual block is.
    resizes_in_time: ClassVar[bool]

    @property
    def channels(self) -> int: ...

    def resnet(self, in_channels: int) -> nn.Cell: ...

    def attention(self) -> nn.Cell: ...

    def halve(self) -> nn.Cell: ...

    def double(self) -> nn.Cell: ...


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
            self.attentions = nn.CellList([level.attention() for _ in inputs])
        self.downsamples, self.in_time = downsamples, level.resizes_in_time
        if downsamples:
            self.downsamplers = nn.CellList([level.halve()])

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
            x = self.downsamplers[0](x, time) if self.in_time else self.downsamplers[0](x)
            skips = (*skips, x)
        return x, skips


class MidBlock(nn.Cell):
    """The lowest level: an attention between two residual blocks."""

    def __init__(self, level: Level) -> None:
        super().__init__()
        self.resnets = nn.CellList([level.resnet(level.channels) for _ in range(2)])
        self.attentions = nn.CellList([level.attention()])

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
            self.attentions = nn.CellList([level.attention() for _ in inputs])
        self.upsamples, self.in_time = upsamples, level.resizes_in_time
        if upsamples:
            self.upsamplers = nn.CellList([level.double()])

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
            x = self.upsamplers[0](x, time) if self.in_time else self.upsamplers[0](x, size)
        return x
