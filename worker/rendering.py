"""What slots and the device loop tell each other: one step to run, and what came of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from storage.errors import LatentmillError
from storage.models import Model
from storage.spec import Step

#: A row between two steps, as the engine saves it.
RowState = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Latent:
    """What a step hands over when the next one shares its VAE."""

    values: NDArray[np.float32]  # [C, h, w], scaled
    fingerprint: str


@dataclass
class Watch:
    """How far one step is, and whether it should stop: shared by a slot and the device loop."""

    #: Index of the step in its chain.
    step: int = 0
    done: int = 0
    total: int = 0
    #: Set by the slot; the device loop lets the row go at the next step boundary.
    leave: LatentmillError | None = None
    #: Set by the device loop when a row that has begun leaves: what it can go on from.
    left: RowState | None = None
    #: Makes a small picture of where the row is now; None where there is nothing to see.
    preview: Callable[[], Image.Image | None] = lambda: None

    def report(
        self, done: int, total: int, preview: Callable[[], Image.Image | None] = lambda: None
    ) -> None:
        """The row is `done` of `total` denoise steps on its way."""
        self.done, self.total, self.preview = done, total, preview


@dataclass(frozen=True, kw_only=True)
class Request:
    """One step to run: `source` is the input picture, a latent with the model's VAE, or None."""

    step: Step
    model: Model
    source: Image.Image | Latent | None
    #: Files whose changes are merged into the model's weights, each with a factor.
    loras: tuple[tuple[Path, float], ...] = ()
    #: The step that follows and its model, if one does: they decide what can be handed over.
    following: tuple[Step, Model] | None
    #: Whether the picture itself is wanted, or only what the next step needs.
    picture: bool
    #: The job's: higher goes first.
    priority: int = 0
    #: Where an earlier run of this same step left off.
    resume: RowState | None = None
    watch: Watch = field(default_factory=Watch)


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """What came of a request."""

    picture: Image.Image | None
    #: Set when the step that follows can take it.
    latent: Latent | None
    width: int
    height: int
    scheduler: str
    #: What the step ran with, its own fields and what they left open.
    options: Mapping[str, Any]
    model_revision: str | None
    vae_fingerprint: str
    #: From the first encoding to the last decoding, in the company of other rows.
    seconds: float
    #: The denoise step that this run went on from; 0: it began anew.
    resumed_at: int
    warnings: tuple[str, ...]
