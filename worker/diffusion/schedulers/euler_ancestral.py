"""Ancestral sampling with Euler steps: each goes past its noise level and adds fresh noise back.

From k-diffusion (Crowson 2022), after the ancestral sampling of Song et al. 2020, formula 47.
"""

from itertools import pairwise
from typing import Literal

from worker.diffusion.schedulers.plan import OUTPUT, SAMPLE, Plan, empty_plan
from worker.diffusion.schedulers.scheduler import Scheduler
from worker.diffusion.schedulers.sigmas import (
    derivative,
    ending,
    levels_at,
    noise_levels,
    starting,
)


class EulerAncestralDiscreteScheduler(Scheduler):
    """First-order steps between noise levels with fresh noise in each."""

    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    timestep_spacing: Literal["leading", "linspace", "trailing"] = "linspace"
    rescale_betas_zero_snr: bool = False

    def solve(self, steps: int, first: int, from_image: bool) -> Plan:
        trained = noise_levels(
            self.signal(self.rescale_betas_zero_snr), self.rescale_betas_zero_snr
        )
        timesteps = self.space(self.timestep_spacing, steps)
        sigmas = ending(levels_at(timesteps, trained))
        start = starting(sigmas, first, self.timestep_spacing, from_image)
        plan = empty_plan(timesteps[first:], start)
        plan.input_scale[:] = (sigmas[first:-1] ** 2 + 1) ** -0.5
        for i, (now, after) in enumerate(pairwise(sigmas[first:])):
            up = (after**2 * (now**2 - after**2) / now**2) ** 0.5
            down = (after**2 - up**2) ** 0.5
            sample, output = derivative(self.prediction_type, now)
            plan.update[i, SAMPLE] = 1 + (down - now) * sample
            plan.update[i, OUTPUT] = (down - now) * output
            plan.noise[i] = up
        return plan
