"""The models that are ready on the device, and which one leaves when another needs its place."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from storage.errors import InvalidModel, Unavailable
from storage.models import Model
from worker.checkpoint_source import locate

logger = logging.getLogger(__name__)


class Wanted(NamedTuple):
    """A model as a step wants it: with the changes that are merged into its weights."""

    model: Model
    #: Files, each with the weight of its changes.
    loras: tuple[tuple[Path, float], ...] = ()


@dataclass(eq=False)
class Resident:
    """A loaded model, and what it would cost to be without it."""

    pipe: Any
    bytes: int
    load_seconds: float
    #: What keeping a byte of it is worth, raised at each use.
    worth: float = 0.0


class LoadedModels:
    """Pipelines by what was wanted, within so many bytes of weights.

    Used by the device loop's thread alone. Which one leaves is GreedyDual-Size's choice (Cao and
    Irani 1997): the one whose loading costs the least for each byte, weighed with the jobs that
    wait for it; and what was not used for long leaves in the end, however dear it was.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        #: Jobs that wait for a model, by its alias; written by other threads.
        self.demand: Mapping[str, int] = {}
        self.loads = 0
        self.load_seconds = 0.0
        self._resident: dict[Wanted, Resident] = {}
        self._fingerprints: dict[Model, str] = {}
        #: The worth of what left last: what is used from now on is worth that more.
        self._level = 0.0

    def __contains__(self, wanted: Wanted) -> bool:
        return wanted in self._resident

    @property
    def aliases(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(wanted.model.alias for wanted in self._resident))

    def ready(self, wanted: Wanted) -> Any:
        """The pipeline if it is loaded, else None; any thread may ask."""
        resident = self._resident.get(wanted)
        return resident.pipe if resident else None

    def get(self, wanted: Wanted) -> Any:
        """The pipeline, loaded if need be. Raises InvalidModel or Unavailable."""
        resident = self._resident.get(wanted) or self._load(wanted)
        waiting = self.demand.get(wanted.model.alias, 0)
        resident.worth = self._level + resident.load_seconds / resident.bytes * (1 + waiting)
        return resident.pipe

    def vae_fingerprint(self, model: Model) -> str:
        """That of a model's VAE; the model is loaded where it never was. Raises as `get`."""
        if model not in self._fingerprints:
            self.get(Wanted(model))
        return self._fingerprints[model]

    def _load(self, wanted: Wanted) -> Resident:
        from worker.diffusion import CheckpointError, HubError, Pipeline, weight_bytes

        model, begun = wanted.model, time.monotonic()
        source: dict[str, Any] = {
            "revision": model.revision, "variant": model.variant, "dtype": model.dtype,
            "loras": wanted.loras, "prior": model.prior,
        }  # fmt: skip
        try:
            place = locate(model)
            self._make_place(Pipeline.expected_bytes(place, **source))
            pipe = Pipeline.from_pretrained(place, **source)
        except CheckpointError as error:
            raise InvalidModel(f"model {model.alias}: {error}") from None
        except (HubError, OSError) as error:
            raise Unavailable(f"model {model.alias} could not be read: {error}") from None
        seconds, size = time.monotonic() - begun, weight_bytes([pipe])
        logger.info("loaded model %s, %.2f GiB, in %.1f s", model.alias, size / 2**30, seconds)
        self.loads += 1
        self.load_seconds += seconds
        self._fingerprints[model] = pipe.vae_fingerprint
        self._resident[wanted] = resident = Resident(pipe, size, seconds)
        return resident

    def _make_place(self, needed: int) -> None:
        """Let models go until `needed` bytes more are within the budget, or none is left."""
        from worker.diffusion import reclaim_memory, weight_bytes

        left = []
        while self._resident:
            held = weight_bytes(resident.pipe for resident in self._resident.values())
            if held + needed <= self.budget:
                break
            leaving = min(self._resident, key=lambda wanted: self._resident[wanted].worth)
            self._level = self._resident.pop(leaving).worth
            left.append(leaving.model.alias)
        if left:
            logger.info("let go of model %s", ", ".join(left))
            reclaim_memory(resident.pipe for resident in self._resident.values())
