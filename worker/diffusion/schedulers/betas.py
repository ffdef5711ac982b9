"""The noise schedule a model was trained with: the share of signal left at each timestep.

Everything is rounded to float32 where the published training code rounds, because `1 - alpha` at
the first timesteps would otherwise differ in its fourth digit.
"""

import math
from collections.abc import Sequence

import numpy as np


def make_betas(name: str, start: float, end: float, count: int) -> np.ndarray:
    """The variance added at each of `count` training timesteps, float32."""
    if name == "linear":
        return linspace32(start, end, count)
    if name == "scaled_linear":
        return linspace32(start**0.5, end**0.5, count) ** 2
    if name == "squaredcos_cap_v2":
        return cosine_betas(count)
    raise ValueError(f"beta_schedule is {name!r}")


def linspace32(start: float, end: float, count: int) -> np.ndarray:
    """Evenly spaced float32 numbers, rounded as torch rounds them: from both ends to the middle."""
    if count == 1:
        return np.array([start], dtype=np.float32)
    first, last = np.float32(start), np.float32(end)
    step = np.float64(np.float32((last - first) / np.float32(count - 1)))
    i = np.arange(count)
    rising, falling = first + step * i, last - step * (count - 1 - i)
    return np.where(i < count // 2, rising, falling).astype(np.float32)


def cosine_betas(count: int) -> np.ndarray:
    """The cosine schedule (Nichol and Dhariwal 2021), each beta at most 0.999."""
    edges = [math.cos((i / count + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(count + 1)]
    betas = [min(1 - edges[i + 1] / edges[i], 0.999) for i in range(count)]
    return np.array(betas, dtype=np.float32)


def zero_terminal_snr(betas: np.ndarray) -> np.ndarray:
    """Betas shifted so that nothing is left of the signal at the last timestep.

    Lin et al. 2023, "Common Diffusion Noise Schedules and Sample Steps are Flawed", algorithm 1.
    """
    root = np.sqrt(signal(betas))
    shifted = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    squared = shifted**2
    alphas = np.concatenate([squared[:1], squared[1:] / squared[:-1]])
    return (1 - alphas).astype(np.float32)


def signal(betas: np.ndarray | Sequence[float]) -> np.ndarray:
    """The cumulative product of `1 - beta`, float32: 1 is all signal, 0 is all noise."""
    alphas = np.float32(1) - np.asarray(betas, dtype=np.float32)
    return np.cumprod(alphas, dtype=np.float64).astype(np.float32)
