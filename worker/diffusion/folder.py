"""A checkpoint in diffusers' layout: a folder for each part, and an index that names them."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from worker.diffusion.errors import CheckpointError
from worker.diffusion.layout import (
    INDEX,
    components,
    file_names,
    needed_files,
    read_json,
    weights_file,
)
from worker.diffusion.safetensors_file import StoredTensor, read_safetensors
from worker.diffusion.tokenizer import Tokenizer
from worker.diffusion.weights import canonical


class Folder:
    """Reads the parts that `model_index.json` names."""

    def __init__(self, path: Path, variant: str | None) -> None:
        """Raises CheckpointError for what is not there, not complete or not in safetensors."""
        if not (path / INDEX).is_file():
            raise CheckpointError(
                f"{path} has no {INDEX}: it is not in diffusers' layout. A checkpoint in one file "
                "is given as that .safetensors file, not as its folder."
            )
        self.path = path
        self.variant = variant
        self.index = read_json(path / INDEX)
        needed_files(file_names(path), self.index, variant)

    @property
    def components(self) -> Collection[str]:
        return components(self.index).keys()

    def config(self, component: str) -> dict[str, Any]:
        name = "scheduler_config.json" if component.endswith("scheduler") else "config.json"
        return read_json(self.part(component) / name)

    def tokenizer(self, component: str) -> Tokenizer:
        return Tokenizer.from_pretrained(self.part(component))

    def weights(self, component: str) -> dict[str, StoredTensor]:
        return canonical(self._tensors(component))

    def part(self, component: str) -> Path:
        """The folder of one component."""
        if component not in components(self.index):
            raise CheckpointError(f"{INDEX} of {self.path} names no {component}.")
        return self.path / component

    def _tensors(self, component: str) -> Iterator[StoredTensor]:
        folder = self.part(component)
        names = {path.name for path in folder.iterdir()}
        library = components(self.index)[component]
        name = weights_file(names, component, library, self.variant)
        shards = [name]
        if not name.endswith(".safetensors"):
            shards = sorted(set(read_json(folder / name).get("weight_map", {}).values()))
            missing = [shard for shard in shards if shard not in names]
            if missing or not shards:
                raise CheckpointError(
                    f"{folder / name} names {len(shards)} shards; not beside it: {missing}."
                )
        for shard in shards:
            yield from read_safetensors(folder / shard)
