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
    return np.interp(np.log(np.maximum(sigmas, 1e-10)), np.log(trained), np.arange(len(trained)))
