"""Denoising Diffusion Probabilistic Models (Ho et al. 2020), formulas 6 and 7."""

from typing import Literal

import numpy as np

from worker.diffusion.errors import PipelineInputError
from worker.diffusion.schedulers.plan import ESTIMATE, SAMPLE, Plan, empty_plan
from worker.diffusion.schedulers.prediction import Prediction, clean_and_noise
from worker.diffusion.schedulers.thresholding import ThresholdingScheduler

LEAST_VARIANCE = 1e-20


class DDPMScheduler(ThresholdingScheduler):
    """Samples from the posterior between the noisy and the estimated clean sample.

    With `learned_range` the model predicts the variance in channels of its own, as Kandinsky's
    decoder does (Nichol and Dhariwal 2021, formula 15).
    """

    variance_type: Literal["fixed_small", "fixed_small_log", "fixed_large", "learned_range"] = (
        "fixed_small"
    )
    clip_sample: bool = True
    clip_sample_range: float = 1.0
    prediction_type: Prediction = "epsilon"
    timestep_spacing: Literal["leading", "linspace", "trailing"] = "leading"
    rescale_betas_zero_snr: bool = False

    def solve(self, steps: int, first: int, from_image: bool) -> Plan:
        alphas = self.signal(self.rescale_betas_zero_snr).astype(float)
        timesteps = self.whole(self.space(self.timestep_spacing, steps))[first:]
        if alphas[timesteps[0]] == 0 and self.prediction_type == "epsilon":
            raise PipelineInputError(
                "rescale_betas_zero_snr is True with prediction_type 'epsilon': "
                "at its first timestep nothing but noise is left to predict from."
            )
        start = (alphas[timesteps[0]] ** 0.5, (1 - alphas[timesteps[0]]) ** 0.5)
        learned = self.variance_type == "learned_range"
        plan = empty_plan(
            timesteps,
            start if from_image else (0.0, 1.0),
            self.clip_sample_range if self.clip_sample else None,
            self.threshold,
            np.zeros((len(timesteps), 2)) if learned else None,
        )
        for i, (t, alpha) in enumerate(zip(timesteps, alphas[timesteps], strict=True)):
            before = alphas[timesteps[i + 1]] if i + 1 < len(timesteps) else 1.0
            beta = 1 - alpha / before
            plan.estimate[i] = clean_and_noise(self.prediction_type, alpha)[0]
            plan.update[i, ESTIMATE] = before**0.5 * beta / (1 - alpha)
            plan.update[i, SAMPLE] = (alpha / before) ** 0.5 * (1 - before) / (1 - alpha)
            if t == 0:
                continue
            variance = max((1 - before) / (1 - alpha) * beta, LEAST_VARIANCE)
            if plan.log_variance is not None:
                plan.noise[i] = 1.0
                plan.log_variance[i] = np.log([variance, beta])
            else:
                plan.noise[i] = (beta if self.variance_type == "fixed_large" else variance) ** 0.5
        return plan
