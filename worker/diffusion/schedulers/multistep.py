"""What the multistep solvers in the logarithm of the signal-to-noise ratio share."""

from abc import abstractmethod
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from worker.diffusion.errors import PipelineInputError
from worker.diffusion.schedulers.plan import Plan, empty_plan
from worker.diffusion.schedulers.prediction import Prediction, clean_and_noise
from worker.diffusion.schedulers.sigmas import (
    ending,
    levels_at,
    noise_levels,
)
from worker.diffusion.schedulers.thresholding import ThresholdingScheduler


class MultistepScheduler(ThresholdingScheduler):
    """A solver of the clean sample's trajectory with the estimates of earlier steps.

    Between noise levels the sample keeps its size: signal `alpha` and noise `sigma` with squares
    that sum to 1. Steps are measured in `h`, the growth of `log(alpha / sigma)`.
    """

    prediction_type: Prediction = "epsilon"
    solver_order: Annotated[int, Field(ge=1, le=2)] = 2
    lower_order_final: bool = True
    use_karras_sigmas: bool | None = False
    use_exponential_sigmas: Literal[False] | None = False
    use_beta_sigmas: Literal[False] | None = False
    use_flow_sigmas: Literal[False] | None = False
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"
    timestep_spacing: Literal["leading", "linspace", "trailing"] = "linspace"
    rescale_betas_zero_snr: bool = False

    def solve(self, steps: int, first: int, from_image: bool) -> Plan:
        timesteps, sigmas = self.levels(steps)
        alphas = 1 / (sigmas**2 + 1)
        start = (alphas[first] ** 0.5, sigmas[first] * alphas[first] ** 0.5)
        plan = empty_plan(
            timesteps[first:], start if from_image else (0.0, 1.0), threshold=self.threshold
        )
        plan.remember[:] = True
        for i, alpha in enumerate(alphas[first:-1]):
            plan.estimate[i] = clean_and_noise(self.prediction_type, alpha)[0]
        self.fill(plan, sigmas[first:], first)
        return plan

    @abstractmethod
    def fill(self, plan: Plan, sigmas: np.ndarray, first: int) -> None:
        """Fills the updates of a plan between these noise levels (n + 1,), from step `first` on."""

    def levels(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """The timesteps (n,) and the noise levels between which the steps lead (n + 1,)."""
        trained = noise_levels(
            self.signal(self.rescale_betas_zero_snr), self.rescale_betas_zero_snr
        )
        timesteps = self.spaced(steps)
        sigmas = levels_at(timesteps, trained)
        smallest = float(trained[0])
        if self.use_karras_sigmas:
            sigmas, timesteps, smallest = self.karras(trained, steps)
        if not (np.diff(sigmas) < 0).all():
            raise PipelineInputError(
                f"num_inference_steps is {steps}: two steps would be at one noise level; "
                "ask for fewer steps."
            )
        return timesteps, ending(sigmas, smallest if self.final_sigmas_type == "sigma_min" else 0.0)

    @abstractmethod
    def karras(self, trained: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Karras's noise levels, their timesteps, and the last level of `sigma_min`."""

    def spaced(self, steps: int) -> np.ndarray:
        """Timesteps as these solvers space them: one more, of which the last is not run."""
        if self.timestep_spacing == "trailing":
            return self.whole(self.space("trailing", steps))
        return self.whole(self.space(self.timestep_spacing, steps + 1)[:-1])


def signal_and_noise(sigma: float) -> tuple[float, float]:
    """The sizes of the clean sample and of the noise in a sample at this noise level."""
    alpha: float = (sigma**2 + 1) ** -0.5
    return alpha, sigma * alpha
