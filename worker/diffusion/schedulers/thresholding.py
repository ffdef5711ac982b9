"""Dynamic thresholding of the estimated clean sample (Saharia et al. 2022, section 2.3)."""

from typing import Annotated

from pydantic import Field

from worker.diffusion.schedulers.plan import Threshold
from worker.diffusion.schedulers.scheduler import Scheduler


class ThresholdingScheduler(Scheduler):
    """A scheduler that can bound its estimate by one of the estimate's own quantiles."""

    thresholding: bool = False
    dynamic_thresholding_ratio: Annotated[float, Field(ge=0, le=1)] = 0.995
    sample_max_value: Annotated[float, Field(gt=0)] = 1.0

    @property
    def threshold(self) -> Threshold | None:
        """What a plan is told of it."""
        if not self.thresholding:
            return None
        return self.dynamic_thresholding_ratio, self.sample_max_value
