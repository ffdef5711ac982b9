"""Residual blocks and the changes of resolution between them."""

from mindspore import Tensor, nn, ops

from worker.diffusion.layers import Conv2d, GroupNorm, Linear, nearest_upsample


class ResnetBlock2D(nn.Cell):
    """Two convolutions around a residual; the time embedding, if any, is added between them.

    (n, in_channels, h, w) to (n, out_channels, h, w). `time` comes with its SiLU applied, once for
    all blocks.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int,
        eps: float,
        time_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, in_channels, eps)
        self.conv1 = Conv2d(in_channels, out_channels)
        self.time_emb_proj = Linear(time_channels, out_channels) if time_channels else None
        self.norm2 = GroupNorm(groups, out_channels, eps)
        self.conv2 = Conv2d(out_channels, out_channels)
        changes = in_channels != out_channels
        self.conv_shortcut = Conv2d(in_channels, out_channels, 1) if changes else None

    def construct(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        added = None if self.time_emb_proj is None else self.time_emb_proj(time)
        y = self.conv1(ops.silu(self.norm1(x)), added)
        y = self.conv2(ops.silu(self.norm2(y)))
        if self.conv_shortcut is not None:
            x = self.conv_shortcut(x)
        return x + y


class Downsample2D(nn.Cell):
    """Halves height and width, rounding up (the UNet's padding) or down (the VAE's)."""

    def __init__(self, channels: int, padding: int | tuple[int, int, int, int]) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, stride=2, padding=padding)

    def construct(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample2D(nn.Cell):
    """Doubles height and width, then drops what lies beyond `size`.

    A size halved with rounding up came from its double or from one less, so that the crop equals
    a nearest-neighbour interpolation to `size`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels)

    def construct(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        x = nearest_upsample(x)
        if size is not None and x.shape[2:] != size:
            x = x[:, :, : size[0], : size[1]]
        return self.conv(x)
