"""Heun's method on the probability-flow equation (Karras et al. 2022, algorithm 1)."""

from typing import ClassVar, Literal

import numpy as np

from worker.diffusion.schedulers.plan import (
    ESTIMATE,
    OUTPUT,
    SAMPLE,
    SAVED,
    TERMS,
    Plan,
    empty_plan,
)
from worker.diffusion.schedulers.prediction import Prediction
from worker.diffusion.schedulers.scheduler import Scheduler
from worker.diffusion.schedulers.sigmas import (
    clean,
    derivative,
    ending,
    karras_sigmas,
    levels_at,
    noise_levels,
    starting,
    timesteps_of,
)


class HeunDiscreteScheduler(Scheduler):
    """Second-order steps: each but the last asks the model at both of its ends.

    So `n` steps are `2 n - 1` of the plan, and an image skips two of them for each of its own.
    """

    evaluations: ClassVar[int] = 2
    beta_start: float = 0.00085
    beta_end: float = 0.012
    prediction_type: Prediction = "epsilon"
    use_karras_sigmas: bool | None = False
    use_exponential_sigmas: Literal[False] | None = False
    use_beta_sigmas: Literal[False] | None = False
    clip_sample: bool = False
    clip_sample_range: float = 1.0
    timestep_spacing: Literal["leading", "linspace", "trailing"] = "linspace"

    def solve(self, steps: int, first: int, from_image: bool) -> Plan:
        timesteps, sigmas = self.levels(steps)
        start = starting(sigmas, first, self.timestep_spacing, from_image)
        clip = self.clip_sample_range if self.clip_sample else None
        # The first half of a step lies where the half before it, the second of its step, has led.
        plan = empty_plan(np.repeat(timesteps, 2)[1:][2 * first :], start, clip)
        for i in range(len(plan)):
            now, after = sigmas[first + i // 2], sigmas[first + i // 2 + 1]
            second = i % 2 == 1
            asked = after if second else now
            plan.input_scale[i] = (asked**2 + 1) ** -0.5
            plan.estimate[i] = clean(self.prediction_type, asked)
            slope = np.zeros(TERMS)
            if self.clip_sample:
                slope[[SAMPLE, ESTIMATE]] = 1 / asked, -1 / asked
            else:
                slope[[SAMPLE, OUTPUT]] = derivative(self.prediction_type, asked)
            if second:
                plan.update[i] = (after - now) / 2 * slope
                plan.update[i, SAVED] = 1.0
                continue
            plan.update[i] = (after - now) * slope
            plan.update[i, SAMPLE] += 1.0
            if after > 0:
                plan.save[i] = (after - now) / 2 * slope
                plan.save[i, SAMPLE] += 1.0
        return plan

    def levels(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """The timesteps (n,) and the noise levels between which the steps lead (n + 1,)."""
        trained = noise_levels(self.signal())
        timesteps = self.space(self.timestep_spacing, steps)
        sigmas = levels_at(timesteps, trained)
        if self.use_karras_sigmas:
            sigmas = karras_sigmas(sigmas[0], sigmas[-1], steps)
            timesteps = timesteps_of(sigmas, trained)
        return timesteps, ending(sigmas)
