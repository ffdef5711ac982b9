"""The denoise loop: where models and schedulers meet, one step of many rows at a time."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from worker.diffusion.noise import draw
from worker.diffusion.schedulers import HISTORY, Plan

#: Latents (n, C, h, w), timesteps (n,) and contexts (n, s, d) to outputs (n, C, h, w), float32.
Predict = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

#: The batch sizes a model is compiled for.
SIZES = (16, 8, 4, 2, 1)

NOTHING = np.zeros((), np.float32)


@dataclass(eq=False)
class Row:
    """One sample on its way from noise to a latent; it alone holds all that its result depends on.

    So rows of different jobs, schedulers and positions can share a step. Arrays are float32 and on
    the host: a latent is small, and the wait for it is what lets a run be stopped between steps.
    """

    #: (C, h, w).
    latent: np.ndarray
    plan: Plan
    generator: np.random.Generator
    #: (s, d).
    embedding: np.ndarray
    #: None: not guided, one place in the batch instead of two.
    negative_embedding: np.ndarray | None = None
    guidance_scale: float = 1.0
    position: int = 0
    saved: np.ndarray = field(default_factory=lambda: NOTHING)
    #: The newest first.
    history: list[np.ndarray] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return self.position >= len(self.plan)

    @property
    def contexts(self) -> list[np.ndarray]:
        """What the model is asked with: the unwanted first, where there is guidance."""
        if self.negative_embedding is None:
            return [self.embedding]
        return [self.negative_embedding, self.embedding]


def step(rows: Sequence[Row], predict: Predict) -> None:
    """Takes each row one step further, whatever its position.

    Rows whose latents have one shape share a call. If the model fails, no row has moved.
    """
    outputs: list[tuple[Row, np.ndarray]] = []
    for shape in dict.fromkeys(row.latent.shape for row in rows):
        alike = [row for row in rows if row.latent.shape == shape]
        batch = predict_places([place for row in alike for place in places(row)], predict)
        outputs += [(row, guide(row, [next(batch) for _ in row.contexts])) for row in alike]
    for row, output in outputs:
        advance(row, output)


def places(row: Row) -> Iterator[tuple[np.ndarray, np.float32, np.ndarray]]:
    """The row's places in the device batch: model input, timestep and context."""
    scaled = row.latent * float(row.plan.input_scale[row.position])
    for context in row.contexts:
        yield scaled, row.plan.timesteps[row.position], context


def predict_places(
    batch: Sequence[tuple[np.ndarray, np.float32, np.ndarray]], predict: Predict
) -> Iterator[np.ndarray]:
    """The model's output for each place, asked for in batches of the compiled sizes."""
    start = 0
    for taken, size in split(len(batch)):
        part = list(batch[start : start + taken])
        part += part[-1:] * (size - taken)
        latents, timesteps, contexts = (np.stack(arrays) for arrays in zip(*part, strict=True))
        yield from predict(latents, timesteps, contexts)[:taken]
        start += taken


def split(count: int) -> Iterator[tuple[int, int]]:
    """How many places go into each call, and the compiled size of that call.

    A call is filled up with copies where at most a quarter of it is waste; else a smaller, full
    one comes first: 3 go as 4, but 5 go as 4 and 1.
    """
    while count:
        size = next(size for size in SIZES if size <= count or size * 3 <= count * 4)
        taken = min(count, size)
        yield taken, size
        count -= taken


def guide(row: Row, outputs: Sequence[np.ndarray]) -> np.ndarray:
    """Classifier-free guidance (Ho and Salimans 2022): away from the unwanted."""
    if len(outputs) == 1:
        return outputs[0]
    unwanted, wanted = outputs
    return unwanted + row.guidance_scale * (wanted - unwanted)


def advance(row: Row, output: np.ndarray) -> None:
    """Applies the scheduler's coefficients of the row's position to the model's output."""
    plan, i = row.plan, row.position
    estimate = combine(plan.estimate[i], (row.latent, output))
    if plan.clip is not None:
        estimate = np.clip(estimate, -plan.clip, plan.clip)
    terms = (row.latent, row.saved, output, estimate, *row.history)
    row.latent, row.saved = combine(plan.update[i], terms), combine(plan.save[i], terms)
    if plan.remember[i]:
        row.history = [estimate, *row.history][:HISTORY]
    if plan.noise[i]:
        row.latent = row.latent + float(plan.noise[i]) * draw(row.generator, row.latent.shape)
    row.position += 1


def combine(coefficients: np.ndarray, terms: Iterable[np.ndarray]) -> np.ndarray:
    """The linear combination of the terms, leaving out those whose coefficient is zero."""
    # A history is shorter than its columns at first.
    scaled = [c * term for c, term in zip(coefficients.tolist(), terms, strict=False) if c]
    return functools.reduce(np.add, scaled) if scaled else NOTHING
