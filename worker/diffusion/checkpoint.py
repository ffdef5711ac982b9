"""A checkpoint: the configurations and weights of a family's parts, whichever layout has them."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from worker.diffusion.card import named_in_card
from worker.diffusion.errors import CheckpointError
from worker.diffusion.folder import Folder
from worker.diffusion.hub import download
from worker.diffusion.layout import DECODER, PICKLES, PRIOR, WEIGHTLESS
from worker.diffusion.lora import ChangedTensor, Changes, read_loras
from worker.diffusion.lora_names import SHORT
from worker.diffusion.safetensors_file import StoredTensor
from worker.diffusion.single_file import SingleFile
from worker.diffusion.tokenizer import Tokenizer
from worker.diffusion.weights import Weight


class Source(Protocol):
    """A layout that a checkpoint is published in; parts have the names of diffusers' layout."""

    path: Path
    #: What `model_index.json` says, or would say.
    index: dict[str, Any]

    @property
    def components(self) -> Collection[str]: ...

    def config(self, component: str) -> dict[str, Any]: ...

    def tokenizer(self, component: str) -> Tokenizer: ...

    def weights(self, component: str) -> dict[str, StoredTensor]: ...


@dataclass(frozen=True)
class Checkpoint:
    """What a pipeline is built from."""

    source: Source
    changes: Changes = field(default_factory=dict)
    #: Another checkpoint that belongs to it: that of Kandinsky's prior.
    prior: "Checkpoint | None" = None

    @classmethod
    def open(
        cls,
        path_or_repo: str | Path,
        revision: str | None = None,
        variant: str | None = None,
        loras: Sequence[tuple[str | Path, float]] = (),
        prior: str | Path | None = None,
    ) -> "Checkpoint":
        """Finds a checkpoint, fetching the files that are needed and not yet cached.

        It is a folder in diffusers' layout, a repository of the Hugging Face hub, or one
        `.safetensors` file in the naming of the original code (see `SingleFile`). `revision` is a
        branch, tag or commit on the hub; `variant` the infix of weight files such as
        `diffusion_pytorch_model.fp16.safetensors`; `loras` are files, each with the factor of its
        changes; `prior` another checkpoint, in place of what the card of a decoder names. Raises
        CheckpointError for a checkpoint or LoRA that is not there, not complete or not in
        safetensors, HubError when the hub does not answer.
        """
        source = find(path_or_repo, revision, variant)
        named = prior if prior is not None else prior_in_card(source)
        if named is not None and DECODER not in source.components:
            raise CheckpointError(f"prior is {str(named)!r}, but {path_or_repo} takes none.")
        further = None if named is None else cls(find(named, None, variant))
        if not loras:
            return cls(source, prior=further)
        weights = {name: source.weights(name) for name in SHORT if name in source.components}
        return cls(source, read_loras(loras, weights), further)

    @property
    def path(self) -> Path:
        return self.source.path

    @property
    def index(self) -> dict[str, Any]:
        """What `model_index.json` says, or would say."""
        return self.source.index

    @property
    def components(self) -> Collection[str]:
        """The names of its parts."""
        return self.source.components

    def config(self, component: str) -> dict[str, Any]:
        """The configuration of one component: `config.json`, or `scheduler_config.json`."""
        return self.source.config(component)

    def tokenizer(self, component: str) -> Tokenizer:
        """The tokenizer that a component such as `tokenizer` or `tokenizer_2` is."""
        return self.source.tokenizer(component)

    def weights(self, component: str) -> dict[str, Weight]:
        """One component's weights under the names used here."""
        changes = self.changes.get(component, {})
        return {
            key: ChangedTensor(tensor, changes[key]) if key in changes else tensor
            for key, tensor in self.source.weights(component).items()
        }

    @property
    def numbers(self) -> int:
        """How many numbers its weights are, those of its prior with them."""
        own = sum(
            math.prod(tensor.shape)
            for name in self.components
            if not name.removeprefix(PRIOR).startswith(WEIGHTLESS)
            for tensor in self.source.weights(name).values()
        )
        return own + (self.prior.numbers if self.prior else 0)


def prior_in_card(source: Source) -> str | None:
    """The prior that the card of a decoder names; None where it is a part of the checkpoint."""
    parts = source.components
    if DECODER not in parts or f"{PRIOR}prior" in parts:
        return None
    return next(iter(named_in_card(source.path, "prior")), None)


def find(path_or_repo: str | Path, revision: str | None, variant: str | None) -> Source:
    path = Path(path_or_repo).expanduser()
    if path.is_dir():
        return Folder(path, variant)
    if path.is_file() or path.suffix in (".safetensors", *PICKLES):
        if variant is not None:
            raise CheckpointError(f"variant is {variant!r}, but {path} is a single file.")
        return SingleFile(path)
    return Folder(download(str(path_or_repo), revision, variant), variant)
