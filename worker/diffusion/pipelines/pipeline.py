"""What every family of pipelines offers, and how a checkpoint's family is found."""

import gc
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from PIL import Image

from worker.diffusion.checkpoint import Checkpoint
from worker.diffusion.denoise import Row
from worker.diffusion.errors import CheckpointError, PipelineInputError
from worker.diffusion.image import to_picture
from worker.diffusion.layers import on_ascend
from worker.diffusion.models.load import vae_fingerprint
from worker.diffusion.schedulers import Scheduler, make_scheduler

DTYPES = {"float32": ms.float32, "float16": ms.float16, "bfloat16": ms.bfloat16}
OUTPUT_TYPES = ("pil", "np", "latent")


class Pipeline(ABC):
    """A loaded model family: prepare rows, step them together, decode their latents.

    Calling it does all three for one request; a device loop calls the stages itself, so that rows
    of many requests share a step. MindSpore must be used by one thread only.
    """

    #: Short name of the family.
    family: str
    #: The values of `_class_name` in `model_index.json` that mean this family.
    class_names: tuple[str, ...]

    def __init__(self, checkpoint: Checkpoint, dtype: ms.dtype) -> None:
        self.dtype = dtype
        self.revision = commit(checkpoint.path)
        self.vae_fingerprint = vae_fingerprint(checkpoint)
        self.published_scheduler = checkpoint.config("scheduler")

    @classmethod
    def from_pretrained(
        cls,
        path_or_repo: str | Path,
        revision: str | None = None,
        variant: str | None = None,
        dtype: str = "float32",
    ) -> "Pipeline":
        """Loads a checkpoint folder, or a repository of the Hugging Face hub.

        Raises CheckpointError for a checkpoint that is incomplete or of an unknown family.
        """
        from worker.diffusion.pipelines.families import FAMILIES

        if dtype not in DTYPES:
            raise CheckpointError(f"dtype is {dtype!r}; allowed: {', '.join(DTYPES)}.")
        if dtype == "bfloat16" and not on_ascend():
            raise CheckpointError("dtype is 'bfloat16', which a CPU does not have; use 'float32'.")
        checkpoint = Checkpoint.open(path_or_repo, revision=revision, variant=variant)
        name = checkpoint.index.get("_class_name")
        for family in FAMILIES:
            if name in family.class_names:
                return family(checkpoint, DTYPES[dtype])
        known = ", ".join(known for family in FAMILIES for known in family.class_names)
        raise CheckpointError(f"{path_or_repo} is made for {name}; pipelines here: {known}.")

    def __call__(
        self,
        prompt: str | Sequence[str],
        image: Any = None,
        *,
        output_type: str = "pil",
        on_step: Callable[[int, int], None] | None = None,
        **options: Any,
    ) -> list[Any]:
        """Runs one row, or as many as the longest list among the arguments; one result a row.

        `options` are those of `prepare`. Results are pictures (`pil`), float32 arrays
        [height, width, 3] in 0..1 (`np`) or float32 latents [C, h, w] as the model scales them
        (`latent`). `on_step(done, total)` is called at the start and after each step; what it
        raises ends the run.
        """
        if output_type not in OUTPUT_TYPES:
            raise PipelineInputError(
                f"output_type is {output_type!r}; allowed: {', '.join(OUTPUT_TYPES)}."
            )
        requests = spread({"prompt": prompt, "image": image, **options})
        rows = [self.prepare(**request) for request in requests]
        total = max((len(row.plan) for row in rows), default=0)
        for done in range(total + 1):
            if done:
                self.step([row for row in rows if not row.done])
            if on_step is not None:
                on_step(done, total)
        return [self.finish(row.latent, output_type) for row in rows]

    #: `prepare(prompt, image, **options)`, the options being the family's own, gives a row at its
    #: start: all checks, all encoding and the starting noise are done.
    prepare: Callable[..., Row]

    @abstractmethod
    def step(self, rows: Sequence[Row]) -> None:
        """One denoise step of rows that may be of different requests, schedulers and positions."""

    @abstractmethod
    def decode(self, latent: np.ndarray) -> np.ndarray:
        """An array [height, width, 3] in 0..1 from a latent [C, h, w].

        Raises FloatingPointError where the result is not finite: a picture would hide that.
        """

    def decode_picture(self, latent: np.ndarray) -> Image.Image:
        """A picture from a latent [C, h, w]."""
        return to_picture(self.decode(latent))

    def finish(self, latent: np.ndarray, output_type: str) -> Any:
        """A latent in the form that was asked for."""
        if output_type == "latent":
            return latent
        return self.decode(latent) if output_type == "np" else self.decode_picture(latent)

    def scheduler(self, override: str | Mapping[str, Any] | None = None) -> Scheduler:
        """The checkpoint's scheduler, or the one asked for instead."""
        return make_scheduler(self.published_scheduler, override)

    def scheduler_name(self, override: str | Mapping[str, Any] | None = None) -> str:
        """The class name of the scheduler that a run with this `scheduler` uses."""
        return type(self.scheduler(override)).__name__


def reclaim_memory() -> None:
    """Frees the compiled graphs of pipelines that were let go of, which otherwise outlive them.

    MindSpore can only free those of all pipelines: the loaded ones compile again at their next use.
    """
    gc.collect()
    ms.ms_memory_recycle()


def commit(path: Path) -> str | None:
    """The commit of a checkpoint that lies in the Hugging Face cache; None for other folders."""
    return path.name if path.parent.name == "snapshots" else None


def spread(arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One set of arguments a row: lists give each row its own value, anything else goes to all."""
    lengths = {name: len(v) for name, v in arguments.items() if isinstance(v, list | tuple)}
    count = max(lengths.values(), default=1)
    for name, length in lengths.items():
        if length != count:
            raise PipelineInputError(f"{name} has {length} values for {count} rows.")
    return [
        {name: value[i] if name in lengths else value for name, value in arguments.items()}
        for i in range(count)
    ]
