"""Layers against NumPy, in the forms that they take for small and for large tensors."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from worker.diffusion import layers
from worker.diffusion.layers import Conv2d, LayerNorm, MultiHeadAttention

FORMS = pytest.mark.parametrize("large", [0, 2**60], ids=["large", "small"])


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def run(cell: nn.Cell, *arrays: np.ndarray) -> np.ndarray:
    cell.set_train(False)
    cell.construct = ms.jit(cell.construct)
    return np.asarray(cell(*map(Tensor, arrays)).asnumpy())


def softmax(scores: np.ndarray) -> np.ndarray:
    grown = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(grown / grown.sum(-1, keepdims=True))


@FORMS
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("kind", ["plain", "biased", "causal", "chunks"])
def test_attention(monkeypatch: pytest.MonkeyPatch, large: int, heads: int, kind: str) -> None:
    monkeypatch.setattr(layers, "LARGE", large)
    if kind == "chunks":
        monkeypatch.setattr(layers, "SCORES_AT_ONCE", 2 * heads * 2 * 5)  # two rows at once
    n, s, d = 2, 5, 4
    q, k, v = numbers(3, n, s, heads * d)
    bias = numbers(n, s, s) if kind == "biased" else None
    cell = MultiHeadAttention(heads, d, causal=kind == "causal")
    found = run(cell, q, k, v) if bias is None else run(cell, q, k, v, bias)

    apart = [x.reshape(n, s, heads, d).transpose(0, 2, 1, 3) for x in (q, k, v)]
    scores = apart[0] @ apart[1].swapaxes(2, 3) / d**0.5
    if bias is not None:
        scores = scores + bias[:, None]
    if kind == "causal":
        scores = np.where(np.tri(s, dtype=bool), scores, -np.inf)
    expected = (softmax(scores) @ apart[2]).transpose(0, 2, 1, 3).reshape(n, s, heads * d)
    assert np.abs(found - expected).max() < 1e-5


@FORMS
def test_layer_norm(monkeypatch: pytest.MonkeyPatch, large: int) -> None:
    monkeypatch.setattr(layers, "LARGE", large)
    cell, x = LayerNorm(6), numbers(2, 3, 6)
    weight, bias = numbers(2, 6)
    cell.weight.set_data(Tensor(weight))
    cell.bias.set_data(Tensor(bias))
    centred = x - x.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias
    assert np.abs(run(cell, x) - expected).max() < 1e-5


def test_what_is_added_to_a_convolution_is_each_samples_own() -> None:
    cell, x, added = Conv2d(3, 4, 1), numbers(2, 3, 5, 6), numbers(2, 4)
    weight, bias = numbers(4, 3, 1, 1), numbers(1, 4)[0]
    cell.weight.set_data(Tensor(weight))
    cell.bias.set_data(Tensor(bias))
    expected = np.einsum("oc,nchw->nohw", weight[:, :, 0, 0], x) + bias[:, None, None]
    expected = expected + added[:, :, None, None]
    assert np.abs(run(cell, x, added) - expected).max() < 1e-5
