"""All random numbers of a row, from its seed alone: the same in any batch and on any device."""

import numpy as np

from worker.diffusion.errors import PipelineInputError


def make_generator(seed: int) -> np.random.Generator:
    """The generator of one row (Philox, counter based)."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise PipelineInputError(f"seed is {seed!r}; it must be a whole number of 0 or more.")
    return np.random.Generator(np.random.Philox(seed))


def draw(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """The generator's next standard normal sample of one latent `(C, h, w)`, float32."""
    return generator.standard_normal((1, *shape), dtype=np.float32)[0]
