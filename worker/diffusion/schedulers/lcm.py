"""Sampling of latent consistency models (Luo et al. 2023), algorithm 3."""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from worker.diffusion.errors import PipelineInputError
from worker.diffusion.schedulers.plan import ESTIMATE, SAMPLE, Plan, empty_plan
from worker.diffusion.schedulers.prediction import Prediction, clean_and_noise
from worker.diffusion.schedulers.thresholding import ThresholdingScheduler

#: The spread of the data, by which the boundary condition's scalings were trained.
DATA = 0.5


class LCMScheduler(ThresholdingScheduler):
    """Goes to the clean sample at each step, then back to the next noise level with fresh noise."""

    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "scaled_linear"
    #: The steps of the schedule that was distilled; a run takes some of them.
    original_inference_steps: Annotated[int, Field(ge=1)] = 50
    timestep_scaling: float = 10.0
    clip_sample: bool = False
    clip_sample_range: float = 1.0
    prediction_type: Prediction = "epsilon"
    rescale_betas_zero_snr: bool = False

    def solve(self, steps: int, first: int, from_image: bool) -> Plan:
        alphas = self.signal(self.rescale_betas_zero_snr).astype(float)
        timesteps = self.distilled(steps)[first:]
        start = (alphas[timesteps[0]] ** 0.5, (1 - alphas[timesteps[0]]) ** 0.5)
        if alphas[timesteps[0]] == 0 and self.prediction_type == "epsilon":
            raise PipelineInputError(
                "rescale_betas_zero_snr is True with prediction_type 'epsilon': "
                "at its first timestep nothing but noise is left to predict from."
            )
        clip = self.clip_sample_range if self.clip_sample else None
        plan = empty_plan(timesteps, start if from_image else (0.0, 1.0), clip, self.threshold)
        for i, t in enumerate(timesteps):
            scaled = t * self.timestep_scaling
            after = alphas[timesteps[i + 1]] if i + 1 < len(timesteps) else 1.0
            plan.estimate[i] = clean_and_noise(self.prediction_type, alphas[t])[0]
            plan.update[i, ESTIMATE] = after**0.5 * scaled / (scaled**2 + DATA**2) ** 0.5
            plan.update[i, SAMPLE] = after**0.5 * DATA**2 / (scaled**2 + DATA**2)
            plan.noise[i] = (1 - after) ** 0.5
        return plan

    def distilled(self, steps: int) -> np.ndarray:
        """The timesteps (n,) of a run, evenly picked from the distilled schedule's."""
        count = self.original_inference_steps
        if not steps <= count <= self.num_train_timesteps:
            raise PipelineInputError(
                f"num_inference_steps is {steps}, original_inference_steps {count}; allowed: "
                f"num_inference_steps <= original_inference_steps <= {self.num_train_timesteps}."
            )
        known = np.arange(count, 0, -1) * (self.num_train_timesteps // count) - 1
        return known[np.floor(np.linspace(0, count, steps, endpoint=False)).astype(int)]
