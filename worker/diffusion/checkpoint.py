"""A checkpoint in diffusers' layout: a folder, or a repository of the Hugging Face hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.diffusion.errors import CheckpointError
from worker.diffusion.hub import download
from worker.diffusion.layout import (
    INDEX,
    components,
    file_names,
    needed_files,
    read_json,
    weights_file,
)


@dataclass(frozen=True)
class Checkpoint:
    """Where the files of a checkpoint lie, and what its `model_index.json` says."""

    path: Path
    index: dict[str, Any]
    variant: str | None = None

    @classmethod
    def open(
        cls, path_or_repo: str | Path, revision: str | None = None, variant: str | None = None
    ) -> "Checkpoint":
        """Finds a checkpoint, fetching the files that are needed and not yet cached.

        `revision` is a branch, tag or commit on the hub; `variant` the infix of weight files such
        as `diffusion_pytorch_model.fp16.safetensors`. Raises CheckpointError for a checkpoint that
        is not there, not complete or not in safetensors, HubError when the hub does not answer.
        """
        path = Path(path_or_repo).expanduser()
        if path.is_dir():
            if not (path / INDEX).is_file():
                raise CheckpointError(
                    f"{path} has no {INDEX}: it is not in diffusers' layout. A single "
                    "file becomes one with diffusers: "
                    "StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER)."
                )
        else:
            path = download(str(path_or_repo), revision, variant)
        index = read_json(path / INDEX)
        needed_files(file_names(path), index, variant)
        return cls(path, index, variant)

    def folder(self, component: str) -> Path:
        """The folder of one component, such as `tokenizer`."""
        if component not in components(self.index):
            raise CheckpointError(f"{INDEX} of {self.path} names no {component}.")
        return self.path / component

    def config(self, component: str) -> dict[str, Any]:
        """The configuration of one component: `config.json`, or `scheduler_config.json`."""
        name = "scheduler_config.json" if component == "scheduler" else "config.json"
        return read_json(self.folder(component) / name)

    def weight_files(self, component: str) -> list[Path]:
        """The safetensors files that hold one component's weights."""
        folder = self.folder(component)
        names = {path.name for path in folder.iterdir()}
        library = components(self.index)[component]
        name = weights_file(names, component, library, self.variant)
        if name.endswith(".safetensors"):
            return [folder / name]
        shards = sorted(set(read_json(folder / name).get("weight_map", {}).values()))
        missing = [shard for shard in shards if shard not in names]
        if missing or not shards:
            raise CheckpointError(
                f"{folder / name} names {len(shards)} shards; not beside it: {missing}."
            )
        return [folder / shard for shard in shards]
