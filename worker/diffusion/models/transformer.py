"""Attention over the positions of a feature map and over a context, as in latent diffusion.

https://arxiv.org/abs/2112.10752
"""

from mindspore import Tensor, nn, ops

from worker.diffusion.layers import (
    Conv2d,
    Gelu,
    GroupNorm,
    LayerNorm,
    Linear,
    MultiHeadAttention,
)


class Attention(nn.Cell):
    """Attention of x (n, s, channels) to a context (n, t, context_channels), by default itself."""

    def __init__(
        self,
        channels: int,
        heads: int,
        context_channels: int | None = None,
        bias: bool = False,
        upcast: bool = False,
    ) -> None:
        super().__init__()
        context_channels = context_channels or channels
        self.to_q = Linear(channels, channels, bias)
        self.to_k = Linear(context_channels, channels, bias)
        self.to_v = Linear(context_channels, channels, bias)
        self.to_out = nn.CellList([Linear(channels, channels)])
        self.attend = MultiHeadAttention(heads, channels // heads, upcast=upcast)

    def construct(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        y = self.attend(self.to_q(x), self.to_k(context), self.to_v(context))
        return self.to_out[0](y)


class GatedGelu(nn.Cell):
    """GEGLU (https://arxiv.org/abs/2002.05202): half of a projection gates the other half."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = Linear(in_channels, 2 * out_channels)
        self.out_channels = out_channels
        self.gelu = Gelu()

    def construct(self, x: Tensor) -> Tensor:
        y = self.proj(x)
        return y[..., : self.out_channels] * self.gelu(y[..., self.out_channels :])


class FeedForward(nn.Cell):
    """A gated layer of four times the width, and back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The checkpoint counts a dropout between the two.
        layers = [GatedGelu(channels, 4 * channels), nn.Identity(), Linear(4 * channels, channels)]
        self.net = nn.CellList(layers)

    def construct(self, x: Tensor) -> Tensor:
        return self.net[2](self.net[0](x))


class BasicTransformerBlock(nn.Cell):
    """Self-attention, cross-attention and a feed-forward layer, each normalised and residual."""

    def __init__(
        self, channels: int, heads: int, context_channels: int, upcast: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm(channels, eps=1e-5)
        self.attn1 = Attention(channels, heads, upcast=upcast)
        self.norm2 = LayerNorm(channels, eps=1e-5)
        self.attn2 = Attention(channels, heads, context_channels, upcast=upcast)
        self.norm3 = LayerNorm(channels, eps=1e-5)
        self.ff = FeedForward(channels)

    def construct(self, x: Tensor, context: Tensor) -> Tensor:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class Transformer2DModel(nn.Cell):
    """Transformer blocks over the positions of (n, c, h, w), residual."""

    def __init__(
        self,
        channels: int,
        heads: int,
        context_channels: int,
        layers: int,
        groups: int,
        linear_projection: bool,
        upcast: bool = False,
    ) -> None:
        super().__init__()
        self.linear_projection = linear_projection
        self.norm = GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = (
            Linear(channels, channels) if linear_projection else Conv2d(channels, channels, 1)
        )
        self.transformer_blocks = nn.CellList(
            [
                BasicTransformerBlock(channels, heads, context_channels, upcast)
                for _ in range(layers)
            ]
        )
        self.proj_out = (
            Linear(channels, channels) if linear_projection else Conv2d(channels, channels, 1)
        )

    def construct(self, x: Tensor, context: Tensor) -> Tensor:
        shape = x.shape
        y = self.norm(x)
        y = self.proj_in(tokens(y)) if self.linear_projection else tokens(self.proj_in(y))
        for block in self.transformer_blocks:
            y = block(y, context)
        if self.linear_projection:
            y = feature_map(self.proj_out(y), shape)
        else:
            y = self.proj_out(feature_map(y, shape))
        return x + y


def tokens(x: Tensor) -> Tensor:
    """(n, c, h, w) to (n, h * w, c)."""
    n, c, h, w = x.shape
    return ops.transpose(ops.reshape(x, (n, c, h * w)), (0, 2, 1))


def feature_map(x: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    """(n, h * w, c) to (n, c, h, w), which is `shape`."""
    return ops.reshape(ops.transpose(x, (0, 2, 1)), shape)
