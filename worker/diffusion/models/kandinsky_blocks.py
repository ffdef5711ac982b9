"""The levels of Kandinsky's UNet: residual blocks, each with an attention where it says so."""

from dataclasses import dataclass

from mindspore import Tensor, nn, ops

from worker.diffusion.layers import Conv2d, GroupNorm, Linear, nearest_upsample
from worker.diffusion.models.transformer import Attention, feature_map, tokens


class Same(nn.Cell):
    """Keeps the size of a feature map."""

    def construct(self, x: Tensor) -> Tensor:
        return x


class Halve(nn.Cell):
    """Height and width to their halves, by averaging."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = ops.AvgPool(kernel_size=2, strides=2)

    def construct(self, x: Tensor) -> Tensor:
        return self.pool(x)


class Double(nn.Cell):
    """Height and width to their doubles, by repeating."""

    def construct(self, x: Tensor) -> Tensor:
        return nearest_upsample(x)


class ResnetBlock2D(nn.Cell):
    """Two convolutions around a residual; the time embedding scales and shifts between them.

    (n, in_channels, h, w) to (n, channels, h', w'): the size changes before the first convolution,
    as `resize` says. `time` comes with its SiLU applied.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        time_channels: int,
        groups: int,
        eps: float,
        resize: nn.Cell | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, in_channels, eps)
        self.conv1 = Conv2d(in_channels, channels)
        self.time_emb_proj = Linear(time_channels, 2 * channels)
        self.norm2 = GroupNorm(groups, channels, eps)
        self.conv2 = Conv2d(channels, channels)
        changes = in_channels != channels
        self.conv_shortcut = Conv2d(in_channels, channels, 1) if changes else None
        self.resize = resize or Same()
        self.channels = channels

    def construct(self, x: Tensor, time: Tensor) -> Tensor:
        y = self.conv1(self.resize(ops.silu(self.norm1(x))))
        t = ops.reshape(self.time_emb_proj(time), (-1, 2 * self.channels, 1, 1))
        y = self.norm2(y) * (1 + t[:, : self.channels]) + t[:, self.channels :]
        y = self.conv2(ops.silu(y))
        x = self.resize(x)
        return y + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class ImageAttention(Attention):
    """Residual attention of the positions of (n, c, h, w) to a context (n, t, d) and themselves."""

    def __init__(
        self, channels: int, heads: int, context_channels: int, groups: int, eps: float = 1e-5
    ) -> None:
        super().__init__(channels, heads, bias=True)
        self.group_norm = GroupNorm(groups, channels, eps)
        self.add_k_proj = Linear(context_channels, channels)
        self.add_v_proj = Linear(context_channels, channels)

    def construct(self, x: Tensor, context: Tensor) -> Tensor:  # type: ignore[override]
        y = tokens(self.group_norm(x))
        keys = ops.concat((self.add_k_proj(context), self.to_k(y)), 1)
        values = ops.concat((self.add_v_proj(context), self.to_v(y)), 1)
        y = self.to_out[0](self.attend(self.to_q(y), keys, values))
        return x + feature_map(y, x.shape)


@dataclass(frozen=True)
class Level:
    """What the blocks of one level of the UNet share."""

    channels: int
    time_channels: int
    context_channels: int
    heads: int
    groups: int
    eps: float

    def resnet(self, in_channels: int, resize: nn.Cell | None = None) -> ResnetBlock2D:
        return ResnetBlock2D(
            in_channels, self.channels, self.time_channels, self.groups, self.eps, resize
        )

    def attention(self) -> ImageAttention:
        return ImageAttention(self.channels, self.heads, self.context_channels, self.groups)


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
        self.downsamples = downsamples
        if downsamples:
            self.downsamplers = nn.CellList([level.resnet(level.channels, Halve())])

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
            x = self.downsamplers[0](x, time)
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
        self.upsamples = upsamples
        if upsamples:
            self.upsamplers = nn.CellList([level.resnet(level.channels, Double())])

    def construct(
        self, x: Tensor, skips: tuple[Tensor, ...], time: Tensor, context: Tensor
    ) -> Tensor:
        """`skips` are read from the last to the first."""
        for i in range(len(self.resnets)):
            x = self.resnets[i](ops.concat((x, skips[-1 - i]), 1), time)
            if self.attends:
                x = self.attentions[i](x, context)
        return self.upsamplers[0](x, time) if self.upsamples else x
