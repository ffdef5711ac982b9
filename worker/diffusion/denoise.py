"""The denoise loop: where models and schedulers meet, one step of many rows at a time."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from worker.diffusion.calls import Place
from worker.diffusion.noise import draw
from worker.diffusion.schedulers import HISTORY, Plan

#: What the model is told of one sample beside its latent and timestep: the arrays that this model
#: takes, in its order, such as a text's embedding (s, d).
Condition = tuple[np.ndarray, ...]

#: Latents (C, h, w), timesteps and the conditions' arrays, of many places, to an output
#: (C, h, w) for each, all float32.
Predict = Callable[[Sequence[Place]], Iterator[tuple[np.ndarray, ...]]]

NOTHING = np.zeros((), np.float32)


@dataclass(eq=False)
class Row:
    """One sample on its way from noise to a latent; it alone holds all that its result depends on.

    So rows of different jobs, schedulers and positions can share a step. Arrays are float32 and on
    the host: a latent is small, and the wait for it is what lets a run be stopped between steps.
    """

    #: (C, h, w), or of another form in a stage before the one that makes the latent.
    latent: np.ndarray
    plan: Plan
    generator: np.random.Generator
    #: One, or two where there is guidance: the unwanted first. Each takes a place in the batch.
    conditions: tuple[Condition, ...]
    guidance_scale: float = 1.0
    position: int = 0
    saved: np.ndarray = field(default_factory=lambda: NOTHING)
    #: The newest first.
    history: list[np.ndarray] = field(default_factory=list)
    #: What follows when the plan is done, and this row as it ended the stage before.
    then: "Stage | None" = None
    before: "Row | None" = None

    @property
    def done(self) -> bool:
        return self.position >= len(self.plan) and self.then is None

    @property
    def taken(self) -> int:
        """The steps taken, in all stages."""
        return self.position + (self.before.taken if self.before else 0)

    @property
    def total(self) -> int:
        """The steps of all stages."""
        ahead = len(self.then.plan) if self.then else 0
        return len(self.plan) + ahead + (self.before.total if self.before else 0)


@dataclass(frozen=True, eq=False)
class Stage:
    """The second of two stages of a row, whose conditions come of what the first one makes."""

    plan: Plan
    guidance_scale: float
    #: (C, h, w).
    shape: tuple[int, ...]
    #: The first stage's result, and the row's random numbers, to a latent and the conditions.
    begin: Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, tuple[Condition, ...]]]


def step(rows: Sequence[Row], predict: Predict) -> None:
    """Takes each row one step further, whatever its position.

    Rows whose latents have one shape share a call. If the model fails, no row has moved.
    """
    outputs: list[tuple[Row, np.ndarray]] = []
    for shape in dict.fromkeys(row.latent.shape for row in rows):
        alike = [row for row in rows if row.latent.shape == shape]
        batch = predict([place for row in alike for place in places(row)])
        outputs += [(row, guide(row, [next(batch)[0] for _ in row.conditions])) for row in alike]
    for row, output in outputs:
        advance(row, output)
        if row.then is not None and row.position == len(row.plan):
            go_on(row, row.then)


def go_on(row: Row, stage: Stage) -> None:
    """Begins a row's second stage with the result of the first."""
    row.before = replace(row, then=None)
    row.latent, row.conditions = stage.begin(row.latent, row.generator)
    row.plan, row.guidance_scale, row.position = stage.plan, stage.guidance_scale, 0
    row.saved, row.history, row.then = NOTHING, [], None


def places(row: Row) -> Iterator[Place]:
    """The row's places in the device batch: model input, timestep and the condition's arrays."""
    scaled = row.latent * float(row.plan.input_scale[row.position])
    for condition in row.conditions:
        yield scaled, row.plan.timesteps[row.position], *condition


def guide(row: Row, outputs: Sequence[np.ndarray]) -> np.ndarray:
    """Classifier-free guidance (Ho and Salimans 2022): away from the unwanted."""
    if len(outputs) == 1:
        return outputs[0]
    unwanted, wanted = outputs
    guided = unwanted + row.guidance_scale * (wanted - unwanted)
    # A predicted variance, in the channels after the latent's, is not guided.
    channels = len(row.latent)
    return np.concatenate([guided[:channels], wanted[channels:]])


def advance(row: Row, output: np.ndarray) -> None:
    """Applies the scheduler's coefficients of the row's position to the model's output."""
    plan, i = row.plan, row.position
    channels = len(row.latent)
    output, variance = output[:channels], output[channels:]
    estimate = bounded(combine(plan.estimate[i], (row.latent, output)), plan)
    terms = (row.latent, row.saved, output, estimate, *row.history)
    row.latent, row.saved = combine(plan.update[i], terms), combine(plan.save[i], terms)
    if plan.remember[i]:
        row.history = [estimate, *row.history][:HISTORY]
    if plan.noise[i]:
        fresh = draw(row.generator, row.latent.shape)
        row.latent = row.latent + float(plan.noise[i]) * deviation(plan, i, variance) * fresh
    row.position += 1


def bounded(estimate: np.ndarray, plan: Plan) -> np.ndarray:
    """The estimate within the plan's bounds."""
    if plan.threshold is not None:
        ratio, largest = plan.threshold
        # Within [-1, 1] already: only clipped.
        bound = min(max(float(np.quantile(np.abs(estimate), ratio)), 1.0), largest)
        return np.clip(estimate, -bound, bound) / bound
    if plan.clip is not None:
        return np.clip(estimate, -plan.clip, plan.clip)
    return estimate


def deviation(plan: Plan, i: int, variance: np.ndarray) -> np.ndarray | float:
    """The standard deviation that the model predicts, or 1 where the plan alone knows it."""
    if plan.log_variance is None:
        return 1.0
    least, greatest = plan.log_variance[i].tolist()
    share = (variance + 1) / 2
    return np.exp((share * greatest + (1 - share) * least) / 2)


def combine(coefficients: np.ndarray, terms: Iterable[np.ndarray]) -> np.ndarray:
    """The linear combination of the terms, leaving out those whose coefficient is zero."""
    # A history is shorter than its columns at first.
    scaled = [c * term for c, term in zip(coefficients.tolist(), terms, strict=False) if c]
    return functools.reduce(np.add, scaled) if scaled else NOTHING
