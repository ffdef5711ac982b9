"""What the levels of Kandinsky's UNet are made of."""

from dataclasses import dataclass
from typing import ClassVar

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
class KandinskyLevel:
    """What the blocks of one level of the UNet share."""

    resizes_in_time: ClassVar[bool] = True
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

    def halve(self) -> ResnetBlock2D:
        return self.resnet(self.channels, Halve())

    def double(self) -> ResnetBlock2D:
        return self.resnet(self.channels, Double())
