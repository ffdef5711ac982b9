"""Pseudo numerical methods (Liu et al. 2022) in the form Stable Diffusion 1.x uses: PLMS."""

from typing import Literal

import numpy as np

from worker.diffusion.errors import PipelineInputError
from worker.diffusion.schedulers.plan import ESTIMATE, SAMPLE, SAVED, Plan, empty_plan
from worker.diffusion.schedulers.prediction import clean_and_noise
from worker.diffusion.schedulers.scheduler import Scheduler

# Adams-Bashforth weights of this step's output and the remembered ones, newest first.
MULTISTEP = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


class PNDMScheduler(Scheduler):
    """A linear multistep method of order up to four; its second timestep runs twice."""

    # The published default is False; a checkpoint that relies on it is refused, not misread.
    skip_prk_steps: bool = False
    set_alpha_to_one: bool = False
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    timestep_spacing: Literal["leading", "linspace", "trailing"] = "leading"

    def solve(self, steps: int, first: int, from_image: bool) -> Plan:
        if not self.skip_prk_steps:
            raise PipelineInputError(
                "PNDMScheduler: skip_prk_steps is False; allowed: True "
                "(the Runge-Kutta warm-up is not implemented)."
            )
        alphas = self.signal().astype(float)
        final = 1.0 if self.set_alpha_to_one else alphas[0]
        stride = self.num_train_timesteps // steps
        spaced = self.whole(self.space(self.timestep_spacing, steps))
        # The second timestep runs twice: the first time to improve the first step's estimate.
        timesteps = np.concatenate([spaced[:1], spaced[1:2], spaced[1:]])[first:]

        start = (alphas[timesteps[0]] ** 0.5, (1 - alphas[timesteps[0]]) ** 0.5)
        plan = empty_plan(timesteps, start if from_image else (0.0, 1.0))
        plan.estimate[:, 1] = 1.0
        plan.remember[:] = True
        for i, t in enumerate(timesteps):
            base, now, before = SAMPLE, t, t - stride
            weights: tuple[float, ...] = MULTISTEP[min(max(i - 1, 0), 3)]
            if i == 0:
                plan.save[i, SAMPLE] = 1.0
            if i == 1:
                # The first step again from where it began, with the mean of both estimates.
                base, now, before, weights = SAVED, t + stride, t, (1 / 2, 1 / 2)
                plan.remember[i] = False
            alpha, alpha_before = alphas[now], alphas[before] if before >= 0 else final
            sample, output = self.transfer(alpha, alpha_before)
            plan.update[i, base] = sample
            plan.update[i, ESTIMATE : ESTIMATE + len(weights)] = output * np.array(weights)
        return plan

    def transfer(self, alpha: float, alpha_before: float) -> tuple[float, float]:
        """Coefficients of the sample and the combined output in the next sample (formula 9)."""
        noise, noise_before = 1 - alpha, 1 - alpha_before
        scale = (alpha * noise_before) ** 0.5 * alpha**0.5 + (alpha * noise * alpha_before) ** 0.5
        sample, epsilon = (alpha_before / alpha) ** 0.5, -(alpha_before - alpha) / scale
        if self.prediction_type == "epsilon":
            return sample, epsilon
        from_sample, from_output = clean_and_noise("v_prediction", alpha)[1]
        return sample + epsilon * from_sample, epsilon * from_output
