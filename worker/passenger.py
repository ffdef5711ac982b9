"""One request on its way through the device loop, from its arrival to its result."""

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from storage.models import Model
from worker.loaded_models import Wanted
from worker.rendering import Rendered, Request


@dataclass(eq=False)
class Passenger:
    """A request and, once it has begun, its row."""

    request: Request
    future: Future[Rendered]
    arrived: float
    #: The engine's row, once it has begun.
    row: Any = None
    begun: float = 0.0
    resumed_at: int = 0

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.request.model, self.request.loras)

    @property
    def key(self) -> tuple[Wanted, tuple[int, ...]]:
        """Rows with the same key can share a call of the model."""
        return self.wanted, self.row.latent.shape

    @property
    def room(self) -> tuple[Model, tuple[int, ...]]:
        """What the room of its group depends on."""
        return self.request.model, self.row.latent.shape
