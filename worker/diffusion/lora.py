"""Low-rank changes of weights (LoRA, https://arxiv.org/abs/2106.09685), merged while loading.

A weight W becomes W + weight * alpha / rank * up @ down, computed in float32.
"""

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worker.diffusion.errors import CheckpointError
from worker.diffusion.layout import PICKLE, PICKLES
from worker.diffusion.lora_names import module_names
from worker.diffusion.safetensors_file import (
    DTYPES,
    StoredTensor,
    read_metadata,
    read_safetensors,
)
from worker.diffusion.weights import NAMED

#: How a key ends, and which matrix it then holds. The last two follow on a letter: `to_q_lora`.
DOWN = (".lora_down", ".lora_A", ".lora.down", ".lora_linear_layer.down", "_lora.down")
UP = (".lora_up", ".lora_B", ".lora.up", ".lora_linear_layer.up", "_lora.up")
MATRICES = {
    **{f"{ending}.weight": "down" for ending in DOWN},
    **{f"{ending}.weight": "up" for ending in UP},
    ".alpha": "alpha",
}

#: Other ways to change weights: how their keys are told, and what they are called.
OTHERS = (
    (r"\.(dora_scale|lora_magnitude_vector)", "DoRA"),
    (r"\.lokr_", "LoKr"),
    (r"\.hada_", "LoHa"),
    (r"\.b?oft_", "OFT"),
    (r"\.lora_mid\.", "LoRA in three matrices (Tucker)"),
    (r"\.(lora_B|lora_up|lora\.up)\.bias$", "LoRA with biases"),
    (r"\.(diff|diff_b|w_norm|b_norm)$", "a list of whole changes"),
    (r"^(bundle_emb|emb_params|string_to_param)", "a textual inversion"),
)

NUMBERS = {**DTYPES, "I64": "<i8", "I32": "<i4"}

#: Where diffusers keeps what it knows of a LoRA.
METADATA = "lora_adapter_metadata"

#: The weights of a component that change, by their keys.
Changes = dict[str, dict[str, tuple["Change", ...]]]


@dataclass(frozen=True)
class Change:
    """The product of two stored matrices, scaled."""

    down: StoredTensor
    up: StoredTensor
    scale: float

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether the product has so many outputs, inputs and places of a kernel."""
        down, up = self.down.shape, self.up.shape
        if min(len(down), len(up), len(shape)) < 2:
            return False
        inner = (up[0], up[1], math.prod(up[2:])) == (shape[0], down[0], 1)
        return inner and (down[1], math.prod(down[2:])) == (shape[1], math.prod(shape[2:]))

    def product(self) -> np.ndarray:
        """(outputs, inputs), those of a convolution with its kernel's places behind one another."""
        down = self.down.float32().reshape(self.down.shape[0], -1)
        up = self.up.float32().reshape(self.up.shape[0], -1)
        return (up * np.float32(self.scale)) @ down


@dataclass(frozen=True)
class ChangedTensor:
    """A stored tensor with changes added when it is read."""

    base: StoredTensor
    changes: tuple[Change, ...]
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    def float32(self) -> np.ndarray:
        first, *others = self.changes
        values = first.product().reshape(self.shape)
        values += self.base.float32()
        self.base.forget()
        for change in others:
            values += change.product().reshape(self.shape)
        return values

    def array(self) -> np.ndarray:
        return self.float32()


def read_loras(
    loras: Sequence[tuple[str | Path, float]], weights: Mapping[str, Mapping[str, StoredTensor]]
) -> Changes:
    """What files, each with its weight, change in the weights of components.

    Raises CheckpointError for a file that is not there or no plain LoRA, and for a key in it that
    belongs to none of these weights.
    """
    changes: Changes = {component: {} for component in weights}
    for path, weight in loras:
        found = read_lora(Path(path).expanduser(), weight, weights)
        # A factor of zero leaves every bit as it is.
        for (component, key), change in found.items() if weight else ():
            changes[component][key] = (*changes[component].get(key, ()), change)
    return changes


def read_lora(
    path: Path, weight: float, weights: Mapping[str, Mapping[str, StoredTensor]]
) -> dict[tuple[str, str], Change]:
    """The changes of one file, by component and key."""
    if path.suffix in PICKLES:
        raise CheckpointError(
            f"{path} is {PICKLE} torch and safetensors: "
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), NEW_FILE)."
        )
    if not path.is_file():
        raise CheckpointError(f"{path} is not there.")
    modules = by_module(path)
    names = module_names({component: list(tensors) for component, tensors in weights.items()})
    refuse(path, "keys belong to no layer of this checkpoint", modules.keys() - names.keys())
    halves = [name for name, found in modules.items() if not {"down", "up"} <= found.keys()]
    refuse(path, "layers lack one of their two matrices", halves)
    metadata = read_adapter_metadata(path)
    changes: dict[tuple[str, str], Change] = {}
    misfits = []
    for name, found in modules.items():
        component, key = names[name]
        rank = max([1, *found["down"].shape[:1]])
        if "alpha" in found:
            factor = number(found["alpha"]) / rank
        else:
            factor = told_factor(metadata, component, key.removesuffix(".weight"), rank)
        change = Change(found["down"], found["up"], weight * factor)
        shape = weights[component][key].shape
        if not change.fits(shape):
            sizes = f"{list(found['up'].shape)} by {list(found['down'].shape)}"
            misfits.append(f"{name} (is {sizes}, should make {list(shape)})")
        if (component, key) in changes:
            raise CheckpointError(f"{path} changes {component} {key} twice.")
        changes[component, key] = change
    refuse(path, "layers have another size here", misfits)
    return changes


def by_module(path: Path) -> dict[str, dict[str, StoredTensor]]:
    """The matrices of a file, and alpha where it says so, by the layer that they change."""
    modules: dict[str, dict[str, StoredTensor]] = {}
    unknown = []
    for tensor in read_safetensors(path):
        for pattern, name in OTHERS:
            if re.search(pattern, tensor.key):
                raise CheckpointError(
                    f"{path} is {name}, which is not merged, only plain LoRA is: "
                    f"it holds {tensor.key}."
                )
        ending = next((ending for ending in MATRICES if tensor.key.endswith(ending)), "")
        part = MATRICES.get(ending)
        if part is None or tensor.dtype not in (NUMBERS if part == "alpha" else DTYPES):
            unknown.append(tensor.key)
        else:
            modules.setdefault(tensor.key.removesuffix(ending), {})[part] = tensor
    refuse(path, "keys are none of a LoRA", unknown)
    if not modules:
        raise CheckpointError(f"{path} holds no LoRA.")
    return modules


def refuse(path: Path, problem: str, names: Collection[str]) -> None:
    if names:
        listed = ", ".join(sorted(names)[:NAMED])
        rest = ", …" * (len(names) > NAMED)
        raise CheckpointError(f"{path} cannot be merged: {len(names)} {problem}: {listed}{rest}.")


def number(stored: StoredTensor) -> float:
    if stored.dtype in DTYPES:
        return float(stored.float32().reshape(-1)[0])
    return float(np.frombuffer(stored.data(), NUMBERS[stored.dtype])[0])


def read_adapter_metadata(path: Path) -> dict[str, Any]:
    """What diffusers says of alphas in a file; empty for other files."""
    text = read_metadata(path).get(METADATA, "{}")
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is damaged: its {METADATA} is no JSON object.")
    return value


def told_factor(metadata: Mapping[str, Any], component: str, module: str, rank: int) -> float:
    """alpha / rank as the metadata has it; without any, alpha is the rank."""
    alpha = metadata.get(f"{component}.lora_alpha", rank)
    for name, value in (metadata.get(f"{component}.alpha_pattern") or {}).items():
        if f".{module}".endswith(f".{name}"):
            alpha = value
    if not isinstance(alpha, int | float):
        raise CheckpointError(f"the {METADATA} of a LoRA has an alpha of {alpha!r}.")
    return alpha / (rank**0.5 if metadata.get(f"{component}.use_rslora") else rank)
