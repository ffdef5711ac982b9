"""Euler's method on the probability-flow equation (Karras et al. 2022, algorithm 2, no churn)."""

from typing import Literal

import numpy as np

from worker.diffusion.errors import PipelineInputError
from worker.diffusion.schedulers.plan import OUTPUT, SAMPLE, Plan, empty_plan
from worker.diffusion.schedulers.prediction import Prediction
from worker.diffusion.schedulers.scheduler import Scheduler
from worker.diffusion.schedulers.sigmas import (
    derivative,
    ending,
    karras_sigmas,
    levels_at,
    noise_levels,
    starting,
    timesteps_of,
)


class EulerDiscreteScheduler(Scheduler):
    """First-order steps between noise levels; the sample is scaled by the noise, not mixed."""

    prediction_type: Prediction = "epsilon"
    interpolation_type: Literal["linear"] = "linear"
    use_karras_sigmas: bool | None = False
    use_exponential_sigmas: Literal[False] | None = False
    use_beta_sigmas: Literal[False] | None = False
    sigma_min: float | None = None
    sigma_max: float | None = None
    timestep_spacing: Literal["leading", "linspace", "trailing"] = "linspace"
    timestep_type: Literal["discrete"] = "discrete"
    rescale_betas_zero_snr: bool = False
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"

    def solve(self, steps: int, first: int, from_image: bool) -> Plan:
        timesteps, sigmas = self.levels(steps)
        start = starting(sigmas, first, self.timestep_spacing, from_image)
        timesteps, sigmas = timesteps[first:], sigmas[first:]

        plan = empty_plan(timesteps, start)
        plan.input_scale[:] = (sigmas[:-1] ** 2 + 1) ** -0.5
        for i, sigma in enumerate(sigmas[:-1]):
            sample, output = derivative(self.prediction_type, sigma)
            plan.update[i, SAMPLE] = 1 + (sigmas[i + 1] - sigma) * sample
            plan.update[i, OUTPUT] = (sigmas[i + 1] - sigma) * output
        return plan

    def levels(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """The timesteps (n,) and the noise levels between which the steps lead (n + 1,)."""
        trained = noise_levels(
            self.signal(self.rescale_betas_zero_snr), self.rescale_betas_zero_snr
        )
        timesteps = self.space(self.timestep_spacing, steps)
        sigmas = levels_at(timesteps, trained)
        if self.use_karras_sigmas:
            largest, smallest = self.sigma_max or sigmas[0], self.sigma_min or sigmas[-1]
            if not largest > smallest > 0 and steps > 1:
                raise PipelineInputError(
                    f"sigma_min is {smallest} and sigma_max is {largest}; "
                    "sigma_max must be the larger and both above 0."
                )
            sigmas = karras_sigmas(largest, smallest, steps)
            timesteps = timesteps_of(sigmas, trained)
        last = trained[0] if self.final_sigmas_type == "sigma_min" else 0.0
        return timesteps, ending(sigmas, last)
