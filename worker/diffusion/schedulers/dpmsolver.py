"""DPM-Solver++ (Lu et al. 2022), algorithm 2 and its stochastic form, of order one and two."""

import math
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator

from worker.diffusion.schedulers.multistep import MultistepScheduler, signal_and_noise
from worker.diffusion.schedulers.plan import ESTIMATE, SAMPLE, Plan
from worker.diffusion.schedulers.sigmas import karras_sigmas, timesteps_of


class DPMSolverMultistepScheduler(MultistepScheduler):
    """Exponential integrators of the clean sample; `sde-` adds fresh noise in each step."""

    algorithm_type: Literal["dpmsolver++", "sde-dpmsolver++"] = "dpmsolver++"
    solver_type: Literal["midpoint", "heun"] = "midpoint"
    euler_at_final: bool = False
    use_lu_lambdas: Literal[False] | None = False
    lambda_min_clipped: Annotated[float, Field(le=-math.inf)] = -math.inf

    @field_validator("solver_type", mode="before")
    @classmethod
    def of_another_class(cls, value: Any) -> Any:
        """The names that other multistep solvers publish mean the default."""
        return "midpoint" if value in ("logrho", "bh1", "bh2") else value

    def fill(self, plan: Plan, sigmas: np.ndarray, first: int) -> None:
        steps = first + len(plan)
        lower_last = self.lower_order_final and steps < 15
        lower_last = lower_last or self.euler_at_final or self.final_sigmas_type == "zero"
        for i, (now, after) in enumerate(pairwise(sigmas)):
            if after >= now:
                plan.update[i, SAMPLE] = 1.0
                continue
            sample, estimate, noise = self.exponentials(now, after)
            plan.update[i, SAMPLE] = sample
            plan.update[i, ESTIMATE] = estimate
            plan.noise[i] = noise
            if self.solver_order == 1 or i == 0 or (i == len(plan) - 1 and lower_last):
                continue
            h, before = math.log(now / after), math.log(sigmas[i - 1] / now)
            slope = h / before * self.slope(now, after)
            plan.update[i, ESTIMATE] += slope
            plan.update[i, ESTIMATE + 1] = -slope

    def exponentials(self, now: float, after: float) -> tuple[float, float, float]:
        """First order: coefficients of the sample, the estimate and the fresh noise."""
        (alpha, noise), decay = signal_and_noise(after), after / now
        sample = noise / signal_and_noise(now)[1]
        if self.algorithm_type == "dpmsolver++":
            return sample, alpha * (1 - decay), 0.0
        return sample * decay, alpha * (1 - decay**2), noise * (1 - decay**2) ** 0.5

    def slope(self, now: float, after: float) -> float:
        """Second order: coefficient of the estimate's change over a step as long as this one."""
        power = 1 if self.algorithm_type == "dpmsolver++" else 2
        alpha, grown = signal_and_noise(after)[0], 1 - (after / now) ** power
        if self.solver_type == "midpoint":
            return alpha * grown / 2
        return alpha * (1 - grown / (power * math.log(now / after)))

    def karras(self, trained: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray, float]:
        sigmas = karras_sigmas(float(trained[-1]), float(trained[0]), steps)
        timesteps = timesteps_of(sigmas, trained)
        # As published: the cosine schedule's are cut off, not rounded.
        if self.beta_schedule != "squaredcos_cap_v2":
            timesteps = timesteps.round()
        return sigmas, np.floor(timesteps), float(trained[0])
