"""The layers that the models are built of: the one file of the engine that knows the device.

Each layer computes the same function everywhere; only the operators differ:

| layer | CPU (compiled, float32) | Ascend |
|---|---|---|
| GroupNorm | BatchNorm over groups as channels, then an affine inference BatchNorm | group_norm |
| LayerNorm | BatchNorm over rows as channels, then the affine part | layer_norm |
| Gelu | x (erf(x / sqrt 2) / 2 + 1/2) | gelu |
| attention | BatchMatMul over rows times heads, long queries in chunks | flash_attention_score |

The CPU's plain norms and `gelu` are two to five times slower than these forms. Its broadcasts and
transpositions keep indices, of twice to four times their result's bytes, for each place in each
graph: large ones are avoided.

Parameters bear the names that torch gives them (`weight`, `bias`), so that a checkpoint's key is
the path of attributes. They start as untouched zeros, which cost neither time nor memory.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import initializer

from worker.diffusion.graphs import kept

#: Attention scores held at once on the CPU (floats): longer queries are taken in chunks.
SCORES_AT_ONCE = 2**25
#: Numbers from which on two plain passes are faster than a transposition or a broadcast.
LARGE = 2**17


def compiled(cell: nn.Cell, *made_of: object) -> nn.Cell:
    """Makes a finished model ready to be called: inference only, compiled once for each shape.

    `made_of` is what it was built from beside its weights. Compiling pays for every model: without
    it each operator costs up to a millisecond a call. The bound method is wrapped, not the cell: a
    compiled function that calls a cell loses its parameters when its graph comes from disk.
    """
    cell.set_train(False)
    for parameter in cell.get_parameters():
        parameter.requires_grad = False
    cell.construct = kept(ms.jit(cell.construct), cell, made_of)
    return cell


def on_ascend() -> bool:
    return ms.get_context("device_target") == "Ascend"


_dtype: ContextVar[ms.dtype] = ContextVar("dtype of new parameters", default=ms.float32)


@contextmanager
def parameters_in(dtype: ms.dtype) -> Iterator[None]:
    """Cells built inside have parameters of this dtype; otherwise it is float32."""
    token = _dtype.set(dtype)
    try:
        yield
    finally:
        _dtype.reset(token)


def empty_parameter(*shape: int) -> Parameter:
    return Parameter(initializer("zeros", shape, _dtype.get()), requires_grad=False)


class Linear(nn.Cell):
    """y = x W^T + b over the last axis."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.weight = empty_parameter(out_channels, in_channels)
        self.bias = empty_parameter(out_channels) if bias else None
        self.matmul = ops.MatMul(transpose_b=True)
        self.bias_add = ops.BiasAdd()

    def construct(self, x: Tensor) -> Tensor:
        y = self.matmul(ops.reshape(x, (-1, x.shape[-1])), self.weight)
        if self.bias is not None:
            y = self.bias_add(y, self.bias)
        return ops.reshape(y, (*x.shape[:-1], self.out_channels))


class Conv2d(nn.Cell):
    """A convolution over NCHW; `padding` is one number or (top, bottom, left, right)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int | tuple[int, int, int, int] | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.weight = empty_parameter(out_channels, in_channels, kernel_size, kernel_size)
        self.bias = empty_parameter(out_channels) if bias else None
        pad = kernel_size // 2 if padding is None else padding
        self.convolve = ops.Conv2D(
            out_channels, kernel_size, pad_mode="pad", pad=pad, stride=stride
        )
        self.bias_add = ops.BiasAdd()

    def construct(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """`added` (n, out_channels) joins the bias, which there must be then."""
        y = self.convolve(x, self.weight)
        if added is not None:
            # As if each sample's channels were channels of their own: one pass for both.
            n, c, h, w = y.shape
            bias = ops.reshape(self.bias + added, (n * c,))
            return ops.reshape(self.bias_add(ops.reshape(y, (1, n * c, h, w)), bias), y.shape)
        return y if self.bias is None else self.bias_add(y, self.bias)


class GroupNorm(nn.Cell):
    """Normalisation over groups of channels of NCHW (https://arxiv.org/abs/1803.08494)."""

    def __init__(self, num_groups: int, num_channels: int, eps: float) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.eps = eps
        self.weight = empty_parameter(num_channels)
        self.bias = empty_parameter(num_channels)
        self.plain = on_ascend()
        # Any other momentum would write into the constants given as running mean and variance.
        self.normalize = ops.BatchNorm(is_training=True, epsilon=eps, momentum=0.0)
        # Its variance is one, so that this epsilon vanishes in float32.
        self.scale = ops.BatchNorm(is_training=False, epsilon=1e-12)

    def construct(self, x: Tensor) -> Tensor:
        if self.plain:
            return ops.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        n, c, h, w = x.shape
        groups = n * self.num_groups
        y = ops.reshape(x, (1, groups, c // self.num_groups * h, w))
        zeros, ones = ops.zeros((groups,), x.dtype), ops.ones((groups,), x.dtype)
        y = ops.reshape(self.normalize(y, ones, zeros, zeros, ones)[0], x.shape)
        zeros, ones = ops.zeros((c,), x.dtype), ops.ones((c,), x.dtype)
        return self.scale(y, self.weight, self.bias, zeros, ones)[0]


class LayerNorm(nn.Cell):
    """Normalisation over the last axis (https://arxiv.org/abs/1607.06450)."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.channels = channels
        self.eps = eps
        self.weight = empty_parameter(channels)
        self.bias = empty_parameter(channels)
        self.plain = on_ascend()
        self.normalize = ops.BatchNorm(is_training=True, epsilon=eps, momentum=0.0)
        self.bias_add = ops.BiasAdd()

    def construct(self, x: Tensor) -> Tensor:
        if self.plain:
            return ops.layer_norm(x, (self.channels,), self.weight, self.bias, self.eps)
        rows = x.size // self.channels
        zeros, ones = ops.zeros((rows,), x.dtype), ops.ones((rows,), x.dtype)
        y = ops.reshape(x, (1, rows, self.channels, 1))
        y = ops.reshape(self.normalize(y, ones, zeros, zeros, ones)[0], (rows, self.channels))
        weight = self.weight
        if x.size >= LARGE:
            weight = ops.tile(ops.reshape(weight, (1, self.channels)), (rows, 1))
        return ops.reshape(self.bias_add(y * weight, self.bias), x.shape)


class Embedding(nn.Cell):
    """Rows of a table by integer ids."""

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.weight = empty_parameter(size, channels)

    def construct(self, ids: Tensor) -> Tensor:
        return ops.gather(self.weight, ids, 0)


class Gelu(nn.Cell):
    """The exact Gaussian error linear unit (https://arxiv.org/abs/1606.08415)."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = on_ascend()

    def construct(self, x: Tensor) -> Tensor:
        if self.plain:
            return ops.gelu(x, approximate="none")
        return x * (ops.erf(x * math.sqrt(0.5)) * 0.5 + 0.5)


class QuickGelu(nn.Cell):
    """The sigmoid approximation of GELU that CLIP was trained with."""

    def construct(self, x: Tensor) -> Tensor:
        return x * ops.sigmoid(x * 1.702)


class MultiHeadAttention(nn.Cell):
    """Scaled dot-product attention in several heads (https://arxiv.org/abs/1706.03762).

    With `upcast` the scores and their softmax are float32 in any dtype, for checkpoints whose
    scores are too large for float16.
    """

    def __init__(
        self, heads: int, head_channels: int, causal: bool = False, upcast: bool = False
    ) -> None:
        super().__init__()
        self.heads = heads
        self.head_channels = head_channels
        self.causal = causal
        self.upcast = upcast
        # The fused kernel promises no dtype for its scores.
        self.fused = on_ascend() and not causal and not upcast
        self.scale = head_channels**-0.5
        self.scores = ops.BatchMatMul(transpose_b=True)
        self.mix = ops.BatchMatMul()

    def construct(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """q (n, s, heads * d), k and v (n, t, heads * d) to (n, s, heads * d).

        `bias` (n, s, t) is added to the scores of every head.
        """
        if self.fused and bias is None and q.dtype != ms.float32:
            return self.flash(q, k, v)
        n, s, _ = q.shape
        if self.upcast:
            q, k = ops.cast(q, ms.float32), ops.cast(k, ms.float32)
        q, k, v = self.split(q * self.scale), self.split(k), self.split(v)
        rows = min(s, max(1, SCORES_AT_ONCE // (q.shape[0] * k.shape[1])))
        chunks: tuple[Tensor, ...] = ()
        for start in range(0, s, rows):
            scores = self.scores(q[:, start : start + rows], k)
            if self.causal:
                scores = scores + self.mask(s, scores.dtype)[start : start + rows]
            if bias is not None:
                shape = scores.shape
                scores = ops.reshape(scores, (self.heads, n, shape[1], shape[2]))
                scores = scores + ops.expand_dims(bias[:, start : start + rows], 0)
                scores = ops.reshape(scores, shape)
            chunks = (*chunks, self.mix(ops.cast(ops.softmax(scores, -1), v.dtype), v))
        return self.merge(chunks[0] if len(chunks) == 1 else ops.concat(chunks, 1), n)

    def split(self, x: Tensor) -> Tensor:
        """(n, s, heads * d) to (heads * n, s, d)."""
        n, s, _ = x.shape
        h, d = self.heads, self.head_channels
        if h == 1:
            return x
        if x.size < LARGE:
            x = ops.transpose(ops.reshape(x, (n, s, h, d)), (2, 0, 1, 3))
            return ops.reshape(x, (h * n, s, d))
        return ops.concat(ops.split(x, d, 2), 0)

    def merge(self, x: Tensor, n: int) -> Tensor:
        """(heads * n, s, d) to (n, s, heads * d)."""
        _, s, d = x.shape
        h = self.heads
        if h == 1:
            return x
        if x.size < LARGE:
            x = ops.transpose(ops.reshape(x, (h, n, s, d)), (1, 2, 0, 3))
            return ops.reshape(x, (n, s, h * d))
        return ops.concat(ops.split(x, n, 0), 2)

    def mask(self, length: int, dtype: ms.dtype) -> Tensor:
        """(length, length), minus a large number where a token would look ahead."""
        return ops.triu(ops.full((length, length), -1e4, dtype=dtype), 1)

    def flash(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        n, s, c = q.shape
        d = self.head_channels
        q, k, v = self.padded(q), self.padded(k), self.padded(v)
        y = ops.flash_attention_score(
            q, k, v, self.heads, scalar_value=self.scale, input_layout="BNSD"
        )
        return ops.reshape(ops.transpose(y[:, :, :, :d], (0, 2, 1, 3)), (n, s, c))

    def padded(self, x: Tensor) -> Tensor:
        """(n, s, heads * d) to (n, heads, s, d'), d' the multiple of 16 that the kernel needs."""
        n, s, _ = x.shape
        d = self.head_channels
        x = ops.transpose(ops.reshape(x, (n, s, self.heads, d)), (0, 2, 1, 3))
        return ops.pad(x, (0, -d % 16)) if d % 16 else x


def nearest_upsample(x: Tensor) -> Tensor:
    """Doubles height and width of NCHW by repeating each value.

    A product with a 0/1 matrix doubles the rows' values and a concatenation the rows; on the CPU
    this takes a fifth of the time of an interpolation.
    """
    n, c, h, w = x.shape
    eye = ops.eye(w, w, x.dtype)
    twice = ops.reshape(ops.stack((eye, eye), -1), (w, 2 * w))
    y = ops.matmul(ops.reshape(x, (n * c * h, w)), twice)
    return ops.reshape(ops.concat((y, y), 1), (n, c, 2 * h, 2 * w))
