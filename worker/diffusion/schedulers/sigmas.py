"""Noise levels: the ratio of noise to signal, as the solvers after Karras et al. 2022 count it."""

import numpy as np


def noise_levels(signal: np.ndarray, terminal_zero: bool = False) -> np.ndarray:
    """The noise level of each training timestep, float32, rising.

    Where the last timestep holds no signal its level would be infinite: it is bounded by the
    smallest float16 above zero, 2**-24.
    """
    signal = signal.copy()
    if terminal_zero:
        signal[-1] = 2**-24
    return np.sqrt((1 - signal) / signal)


def karras_sigmas(largest: float, smallest: float, steps: int, rho: float = 7.0) -> np.ndarray:
    """Falling noise levels, dense where there is little noise (Karras et al. 2022, formula 5)."""
    ramp = np.linspace(0, 1, steps)
    top, bottom = largest ** (1 / rho), smallest ** (1 / rho)
    return (top + ramp * (bottom - top)) ** rho


def timesteps_of(sigmas: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """The timesteps between which these noise levels lie, interpolated in their logarithm."""
    known = np.log(trained)
    # In float32 like the trained levels: else their ends would lie a rounding beside themselves.
    levels = np.log(np.maximum(sigmas, 1e-10)).astype(np.float32)
    low = np.clip(np.searchsorted(known, levels, side="right") - 1, 0, len(known) - 2)
    share = np.clip((levels - known[low]) / (known[low + 1] - known[low]), 0, 1)
    return (1 - share) * low + share * (low + 1)


def levels_at(timesteps: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """The noise levels of these timesteps, interpolated between the trained ones."""
    return np.interp(timesteps.astype(np.float32), np.arange(len(trained)), trained)


def ending(sigmas: np.ndarray, last: float = 0.0) -> np.ndarray:
    """The levels between which the steps lead: the last one too, rounded as they are published."""
    return np.append(sigmas, last).astype(np.float32).astype(float)


def starting(sigmas: np.ndarray, first: int, spacing: str, from_image: bool) -> tuple[float, float]:
    """Shares of latent and noise in a start whose sample is scaled by the noise."""
    if from_image:
        return 1.0, float(sigmas[first])
    largest = float(sigmas.max())
    return 0.0, (largest**2 + 1) ** 0.5 if spacing == "leading" else largest


def derivative(prediction_type: str, sigma: float) -> tuple[float, float]:
    """Coefficients of the sample and the output in `(sample - clean) / sigma`."""
    sample, output = clean(prediction_type, sigma)
    return (1 - sample) / sigma, -output / sigma


def clean(prediction_type: str, sigma: float) -> tuple[float, float]:
    """Coefficients of the sample and the output in the clean sample."""
    if prediction_type == "epsilon":
        return 1.0, -sigma
    if prediction_type == "sample":
        return 0.0, 1.0
    return 1 / (sigma**2 + 1), -sigma * (sigma**2 + 1) ** -0.5
