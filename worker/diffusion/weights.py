"""Giving cells the weights of a checkpoint: every key must be expected, and every weight given."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from worker.diffusion.errors import CheckpointError
from worker.diffusion.safetensors_file import DTYPES, StoredTensor

#: Keys that published files hold and that are no weights, each with the reason.
DROPPED = {
    "text_model.embeddings.position_ids": "the numbers 0 to 76, which transformers once stored",
    "vision_model.embeddings.position_ids": "the numbers of the patches, as above",
}

#: Published names that are others here: (pattern, replacement, reason).
RENAMED = (
    (r"(\.attentions\.\d+)\.query\.", r"\1.to_q.", "the VAE's attention before diffusers 0.18"),
    (r"(\.attentions\.\d+)\.key\.", r"\1.to_k.", "the same"),
    (r"(\.attentions\.\d+)\.value\.", r"\1.to_v.", "the same"),
    (r"(\.attentions\.\d+)\.proj_attn\.", r"\1.to_out.0.", "the same"),
    (
        r"^(embeddings|encoder\.layers|final_layer_norm)\.",
        r"text_model.\1.",
        "transformers 5 saves text encoders without the prefix",
    ),
)

#: Matrices that some files hold as 1x1 convolutions: the VAE's attention, as first published.
SQUEEZED = re.compile(r"\.attentions\.\d+\.to_(q|k|v|out\.0)\.weight$")

#: How many keys an error names.
NAMED = 5


class Weight(Protocol):
    """The values of one parameter, wherever they come from."""

    @property
    def dtype(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    def array(self) -> np.ndarray: ...

    def float32(self) -> np.ndarray: ...


def load_weights(cells: Sequence[nn.Cell], stored: Mapping[str, Weight], name: str) -> None:
    """Fills the parameters of `cells`, which are one component, from its weights.

    Raises CheckpointError that names missing, unexpected and misshapen keys.
    """
    parameters = {key: p for cell in cells for key, p in cell.parameters_and_names()}
    problems = {
        "missing": parameters.keys() - stored.keys(),
        "unexpected": stored.keys() - parameters.keys(),
        "misshapen": {
            f"{key} (is {list(stored[key].shape)}, should be {list(parameters[key].shape)})"
            for key in parameters.keys() & stored.keys()
            if shape(key, stored[key]) != parameters[key].shape
        },
        "not floating-point": {
            f"{key} ({tensor.dtype})"
            for key, tensor in stored.items()
            if tensor.dtype not in DTYPES
        },
    }
    sentences = [
        f"{len(keys)} {problem}: {', '.join(sorted(keys)[:NAMED])}{', …' * (len(keys) > NAMED)}"
        for problem, keys in problems.items()
        if keys
    ]
    if sentences:
        raise CheckpointError(f"The weights of {name} do not fit. {'; '.join(sentences)}.")
    for key, parameter in parameters.items():
        parameter.set_data(tensor(stored[key], parameter.shape, parameter.dtype))


def canonical(tensors: Iterable[StoredTensor]) -> dict[str, StoredTensor]:
    """Tensors as published under the names used here."""
    stored: dict[str, StoredTensor] = {}
    for tensor in tensors:
        key = tensor.key
        if key in DROPPED or f"text_model.{key}" in DROPPED:
            continue
        for pattern, replacement, _ in RENAMED:
            key = re.sub(pattern, replacement, key)
        if key in stored:
            raise CheckpointError(f"the weights hold {key} twice, the second time as {tensor.key}.")
        stored[key] = tensor
    return stored


def shape(key: str, stored: Weight) -> tuple[int, ...]:
    if SQUEEZED.search(key) and stored.shape[2:] == (1, 1):
        return stored.shape[:2]
    return stored.shape


def tensor(stored: Weight, shape: tuple[int, ...], dtype: ms.dtype) -> Tensor:
    """The stored values in a dtype; the mapped file itself where that is the one they have."""
    if dtype == ms.float16:
        values = stored.array() if stored.dtype == "F16" else stored.float32().astype(np.float16)
        return Tensor.from_numpy(np.ascontiguousarray(values).reshape(shape))
    values = np.ascontiguousarray(stored.float32()).reshape(shape)
    return Tensor.from_numpy(values) if dtype == ms.float32 else Tensor(values, dtype)


def fingerprint(config: object, weights: Mapping[str, StoredTensor]) -> str:
    """SHA-256 of a component's configuration (a frozen dataclass) and weights as stored.

    Independent of the names that publishers gave the keys, of their order and of sharding.
    """
    digest = hashlib.sha256(repr(config).encode())
    for key, stored in sorted(weights.items()):
        digest.update(f"\n{key} {stored.dtype} {shape(key, stored)}\n".encode())
        digest.update(stored.data())
        stored.forget()
    return digest.hexdigest()
