"""The sampler of unCLIP's prior (Ramesh et al. 2022): DDPM over evenly spread timesteps."""

from itertools import pairwise
from typing import Literal

import numpy as np

from worker.diffusion.errors import PipelineInputError
from worker.diffusion.schedulers.betas import cosine_betas, signal
from worker.diffusion.schedulers.ddpm import LEAST_VARIANCE
from worker.diffusion.schedulers.plan import ESTIMATE, SAMPLE, Plan, empty_plan
from worker.diffusion.schedulers.prediction import clean_and_noise
from worker.diffusion.schedulers.scheduler import Scheduler


class UnCLIPScheduler(Scheduler):
    """Steps from the last training timestep to the first, both of them included."""

    beta_schedule: Literal["squaredcos_cap_v2"] = "squaredcos_cap_v2"
    variance_type: Literal["fixed_small_log", "learned_range"] = "fixed_small_log"
    clip_sample: bool = True
    clip_sample_range: float = 1.0
    prediction_type: Literal["epsilon", "sample"] = "epsilon"

    def solve(self, steps: int, first: int, from_image: bool) -> Plan:
        if steps < 2:
            raise PipelineInputError(
                "num_inference_steps is 1; UnCLIPScheduler needs 2 or more: the first and the "
                "last timestep."
            )
        betas = cosine_betas(self.num_train_timesteps)
        alphas = signal(betas).astype(float)
        ratio = (self.num_train_timesteps - 1) / (steps - 1)
        timesteps = (np.arange(steps) * ratio).round()[::-1].astype(np.int64)[first:]
        start = (alphas[timesteps[0]] ** 0.5, (1 - alphas[timesteps[0]]) ** 0.5)
        plan = empty_plan(
            timesteps,
            start if from_image else (0.0, 1.0),
            self.clip_sample_range if self.clip_sample else None,
            log_variance=np.zeros((len(timesteps), 2))
            if self.variance_type == "learned_range"
            else None,
        )
        for i, (t, after) in enumerate(pairwise([*timesteps, -1])):
            alpha, before = alphas[t], 1.0 if after < 0 else alphas[after]
            # As published for neighbours: what their shares of signal say is rounded.
            beta = float(betas[t]) if after == t - 1 else 1 - alpha / before
            plan.estimate[i] = clean_and_noise(self.prediction_type, alpha)[0]
            plan.update[i, ESTIMATE] = before**0.5 * beta / (1 - alpha)
            plan.update[i, SAMPLE] = (1 - beta) ** 0.5 * (1 - before) / (1 - alpha)
            if t == 0:
                continue
            variance = max((1 - before) / (1 - alpha) * beta, LEAST_VARIANCE)
            plan.noise[i] = variance**0.5
            if plan.log_variance is not None:
                plan.noise[i] = 1.0
                plan.log_variance[i] = np.log([variance, beta])
        return plan
