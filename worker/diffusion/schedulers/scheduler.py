"""What all schedulers share: a published configuration, and a plan made from it."""

from abc import abstractmethod
from typing import Annotated, Literal

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

    num_train_timesteps: Annotated[int, Field(ge=1)] = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    trained_betas: list[float] | None = None
    steps_offset: Annotated[int, Field(ge=0)] = 0

    def plan(self, num_inference_steps: int, strength: float | None = None) -> Plan:
        """The steps of one run; with a strength, only the last of them (img2img)."""
        steps = num_inference_steps
        if not isinstance(steps, int) or not 1 <= steps <= self.num_train_timesteps:
            raise PipelineInputError(
                f"num_inference_steps is {steps!r}; "
                f"it must be a whole number from 1 to {self.num_train_timesteps}."
            )
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
