"""What a scheduler hands to the denoise loop: every number of a run, worked out beforehand."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

# The terms that an update may combine, in the order of its columns. Columns after ESTIMATE are the
# remembered estimates, newest first.
SAMPLE, SAVED, OUTPUT, ESTIMATE = range(4)
HISTORY = 3
TERMS = ESTIMATE + 1 + HISTORY

Threshold = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Plan:
    """The coefficients of `n` denoise steps of one row.

    A step gives the model `input_scale * sample`, forms the solver's estimate from the sample and
    the model's output, bounds it where the solver asks for that (`clip`, `threshold`), and then
    takes linear combinations of its terms: the next sample, and what to save for a later step.
    Each solver, of one step or of several, is such a table, so that rows with different schedulers
    can share one device batch.
    """

    #: What the model is told, (n,).
    timesteps: np.ndarray
    #: (n,).
    input_scale: np.ndarray
    #: The start is `start[0] * latent + start[1] * noise`.
    start: tuple[float, float]
    #: Coefficients of the sample and of the model's output in the estimate, (n, 2).
    estimate: np.ndarray
    #: Coefficients of the next sample, (n, TERMS).
    update: np.ndarray
    #: Coefficients of the saved sample; all zero: nothing is saved, (n, TERMS).
    save: np.ndarray
    #: Whether the step's estimate joins the history, (n,) bool.
    remember: np.ndarray
    #: Scale of the fresh noise added after the update; zero: none is drawn, (n,).
    noise: np.ndarray
    #: The estimate is clipped to `[-clip, clip]`.
    clip: float | None = None
    #: Dynamic thresholding instead: the quantile, and the largest magnitude it may lead to.
    threshold: Threshold | None = None
    #: Where the model predicts how much noise to add: the logarithms of the least and the greatest
    #: variance, between which the second half of its output's channels chooses by -1..1, (n, 2).
    log_variance: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.timesteps)

    def until(self, count: int) -> "Plan":
        """The first steps alone."""
        fields = vars(self).items()
        tables: dict[str, Any] = {k: v[:count] for k, v in fields if isinstance(v, np.ndarray)}
        return replace(self, **tables)


def empty_plan(
    timesteps: np.ndarray,
    start: tuple[float, float],
    clip: float | None = None,
    threshold: Threshold | None = None,
    log_variance: np.ndarray | None = None,
) -> Plan:
    """A plan for these timesteps whose tables a solver has yet to fill."""
    n = len(timesteps)
    return Plan(
        timesteps=timesteps.astype(np.float32),
        input_scale=np.ones(n),
        start=(float(start[0]), float(start[1])),
        estimate=np.zeros((n, 2)),
        update=np.zeros((n, TERMS)),
        save=np.zeros((n, TERMS)),
        remember=np.zeros(n, dtype=bool),
        noise=np.zeros(n),
        clip=clip,
        threshold=threshold,
        log_variance=log_variance,
    )
