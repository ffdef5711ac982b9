"""What all schedulers share: a published configuration, and a plan made from it."""

from abc import abstractmethod
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from worker.diffusion.errors import PipelineInputError
from worker.diffusion.schedulers.betas import make_betas, signal, zero_terminal_snr
from worker.diffusion.schedulers.plan import Plan


class Scheduler(BaseModel):
    """A noise schedule with its solver, named and configured as in `scheduler_config.json`.

    Each class states its own defaults. A value that is not implemented is no allowed value of its
    field.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    #: How often a step asks the model, but for the last one.
    evaluations: ClassVar[int] = 1

    num_train_timesteps: Annotated[int, Field(ge=1)] = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    trained_betas: list[float] | None = None
    steps_offset: Annotated[int, Field(ge=0)] = 0

    def plan(
        self,
        num_inference_steps: int,
        strength: float | None = None,
        denoising_start: float | None = None,
        denoising_end: float | None = None,
    ) -> Plan:
        """The steps of one run; with a strength, only the last of them (img2img).

        `denoising_start` and `denoising_end` are shares of the training timesteps: a run ends where
        another one, which may be another model's, goes on from its latent as it is. So with
        `denoising_start` no noise joins, and `strength` does not matter.
        """
        steps = num_inference_steps
        if not isinstance(steps, int) or not 1 <= steps <= self.num_train_timesteps:
            raise PipelineInputError(
                f"num_inference_steps is {steps!r}; "
                f"it must be a whole number from 1 to {self.num_train_timesteps}."
            )
        check_shares(denoising_start, denoising_end)
        if denoising_start is not None:
            plan = self.going_on(steps, denoising_start)
        else:
            plan = self.beginning(steps, strength)
        if denoising_end is None:
            return plan
        count = int((plan.timesteps >= self.boundary(denoising_end)).sum())
        if count < 1:
            raise PipelineInputError(
                f"denoising_end {denoising_end} of {steps} num_inference_steps leaves no step to "
                "run; raise either."
            )
        return plan.until(count)

    def beginning(self, steps: int, strength: float | None) -> Plan:
        """A plan that begins from noise, or from an image with so much of it."""
        if strength is None:
            return self.solve(steps, first=0, from_image=False)
        if not isinstance(strength, int | float) or not 0 <= strength <= 1:
            raise PipelineInputError(f"strength is {strength!r}; it must be from 0 to 1.")
        kept = min(int(steps * strength), steps)
        if kept < 1:
            raise PipelineInputError(
                f"strength {strength} of {steps} num_inference_steps leaves no step to run; "
                "raise either, so that their product is at least 1."
            )
        return self.solve(steps, first=steps - kept, from_image=True)

    def going_on(self, steps: int, share: float) -> Plan:
        """A plan that begins where another one has ended, without noise of its own."""
        timesteps = self.solve(steps, first=0, from_image=False).timesteps
        passed = int((timesteps >= self.boundary(share)).sum())
        # In whole steps: one of which a half was taken is taken again.
        first = passed // self.evaluations
        if passed == len(timesteps) and self.evaluations == 1:
            raise PipelineInputError(
                f"denoising_start {share} of {steps} num_inference_steps leaves no step to run; "
                "lower the one or raise the other."
            )
        return replace(self.solve(steps, first, from_image=True), start=(1.0, 0.0))

    def boundary(self, share: float) -> int:
        """The timestep that parts the steps of the two runs that meet at this share of the way."""
        return round(self.num_train_timesteps - share * self.num_train_timesteps)

    @abstractmethod
    def solve(self, steps: int, first: int, from_image: bool) -> Plan:
        """The plan of `steps` steps from position `first` on."""

    def signal(self, rescale_zero_snr: bool = False) -> np.ndarray:
        """The share of signal left at each training timestep, float32."""
        if self.trained_betas is not None:
            betas = np.array(self.trained_betas, dtype=np.float32)
            if len(betas) != self.num_train_timesteps:
                raise PipelineInputError(
                    f"trained_betas has {len(betas)} values; "
                    f"allowed: num_train_timesteps, {self.num_train_timesteps}."
                )
        else:
            betas = make_betas(
                self.beta_schedule, self.beta_start, self.beta_end, self.num_train_timesteps
            )
        return signal(zero_terminal_snr(betas) if rescale_zero_snr else betas)

    def space(self, spacing: str, steps: int) -> np.ndarray:
        """Timesteps from noisy to clean, not yet rounded where they are `linspace`d.

        Lin et al. 2023, table 2.
        """
        count = self.num_train_timesteps
        if spacing == "linspace":
            return np.linspace(0, count - 1, steps)[::-1]
        if spacing == "leading":
            return (np.arange(steps) * (count // steps))[::-1] + float(self.steps_offset)
        return np.round(np.arange(count, 0, -count / steps)) - 1

    def whole(self, timesteps: np.ndarray) -> np.ndarray:
        """Timesteps as indices into the training schedule."""
        rounded = np.round(timesteps).astype(np.int64)
        if rounded.max() >= self.num_train_timesteps:
            raise PipelineInputError(
                f"num_inference_steps is {len(rounded)}: with steps_offset {self.steps_offset} "
                f"the first timestep would be {rounded.max()}, and the model was trained on "
                f"0 to {self.num_train_timesteps - 1}; ask for fewer steps."
            )
        return rounded


def check_shares(start: Any, end: Any) -> None:
    for name, share in (("denoising_start", start), ("denoising_end", end)):
        if share is not None and (not isinstance(share, int | float) or not 0 < share < 1):
            raise PipelineInputError(f"{name} is {share!r}; it must be between 0 and 1.")
    if start is not None and end is not None and start >= end:
        raise PipelineInputError(
            f"denoising_start is {start} and denoising_end is {end}; the end must be the larger."
        )
