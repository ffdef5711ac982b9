"""Denoising Diffusion Implicit Models (Song et al. 2020), formula 12 with sigma = 0."""

from typing import Literal

from worker.diffusion.errors import PipelineInputError
from worker.diffusion.schedulers.plan import ESTIMATE, OUTPUT, SAMPLE, Plan, empty_plan
from worker.diffusion.schedulers.prediction import Prediction, clean_and_noise
from worker.diffusion.schedulers.thresholding import ThresholdingScheduler


class DDIMScheduler(ThresholdingScheduler):
    """Deterministic steps (eta 0): predicts the clean sample, then adds its noise back."""

    clip_sample: bool = True
    clip_sample_range: float = 1.0
    set_alpha_to_one: bool = True
    prediction_type: Prediction = "epsilon"
    timestep_spacing: Literal["leading", "linspace", "trailing"] = "leading"
    rescale_betas_zero_snr: bool = False

    def solve(self, steps: int, first: int, from_image: bool) -> Plan:
        alphas = self.signal(self.rescale_betas_zero_snr).astype(float)
        final = 1.0 if self.set_alpha_to_one else alphas[0]
        timesteps = self.whole(self.space(self.timestep_spacing, steps))[first:]
        stride = self.num_train_timesteps // steps

        start = (alphas[timesteps[0]] ** 0.5, (1 - alphas[timesteps[0]]) ** 0.5)
        clip = self.clip_sample_range if self.clip_sample else None
        plan = empty_plan(timesteps, start if from_image else (0.0, 1.0), clip, self.threshold)
        for i, t in enumerate(timesteps):
            if alphas[t] == 0 and self.prediction_type == "epsilon":
                raise PipelineInputError(
                    "rescale_betas_zero_snr is True with prediction_type 'epsilon': "
                    "at its first timestep nothing but noise is left to predict from."
                )
            before = alphas[t - stride] if t >= stride else final
            clean, noise = clean_and_noise(self.prediction_type, alphas[t])
            plan.estimate[i] = clean
            plan.update[i, ESTIMATE] = before**0.5
            plan.update[i, SAMPLE] = (1 - before) ** 0.5 * noise[0]
            plan.update[i, OUTPUT] = (1 - before) ** 0.5 * noise[1]
        return plan
