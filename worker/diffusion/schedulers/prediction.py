"""What a model's output says about the clean sample and about the noise in it."""

from typing import Literal

Prediction = Literal["epsilon", "sample", "v_prediction"]

#: Coefficients of the noisy sample and of the model's output.
Pair = tuple[float, float]


def clean_and_noise(kind: str, alpha: float) -> tuple[Pair, Pair]:
    """The clean sample and the noise, each as coefficients of the noisy sample and the output.

    `alpha` is the share of signal: `noisy = sqrt(alpha) * clean + sqrt(1 - alpha) * noise`.
    For `v_prediction` see Salimans and Ho 2022.
    """
    signal, noise = alpha**0.5, (1 - alpha) ** 0.5
    if kind == "epsilon":
        return (1 / signal, -noise / signal), (0.0, 1.0)
    if kind == "sample":
        return (0.0, 1.0), (1 / noise, -signal / noise)
    return (signal, -noise), (noise, signal)
