"""From a published configuration, or what a user asked for instead, to a scheduler."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from worker.diffusion.errors import PipelineInputError
from worker.diffusion.schedulers.ddim import DDIMScheduler
from worker.diffusion.schedulers.ddpm import DDPMScheduler
from worker.diffusion.schedulers.dpmsolver import DPMSolverMultistepScheduler
from worker.diffusion.schedulers.euler import EulerDiscreteScheduler
from worker.diffusion.schedulers.euler_ancestral import EulerAncestralDiscreteScheduler
from worker.diffusion.schedulers.heun import HeunDiscreteScheduler
from worker.diffusion.schedulers.lcm import LCMScheduler
from worker.diffusion.schedulers.pndm import PNDMScheduler
from worker.diffusion.schedulers.scheduler import Scheduler
from worker.diffusion.schedulers.unclip import UnCLIPScheduler
from worker.diffusion.schedulers.unipc import UniPCMultistepScheduler

SCHEDULERS: dict[str, type[Scheduler]] = {
    kind.__name__: kind
    for kind in (
        DDIMScheduler,
        DDPMScheduler,
        DPMSolverMultistepScheduler,
        EulerAncestralDiscreteScheduler,
        EulerDiscreteScheduler,
        HeunDiscreteScheduler,
        LCMScheduler,
        PNDMScheduler,
        UnCLIPScheduler,
        UniPCMultistepScheduler,
    )
}


def make_scheduler(
    published: Mapping[str, Any], override: str | Mapping[str, Any] | None = None
) -> Scheduler:
    """The scheduler that a checkpoint publishes, or another class with the same noise schedule.

    `override` is a class name, or `{"class": name, field: value, ...}`. Only fields that stand in
    the published file carry over to another class; the rest are that class's own defaults.
    """
    if override is None:
        override = published.get("_class_name")
    if not isinstance(override, Mapping):
        override = {"class": override}
    name = override.get("class")
    kind = SCHEDULERS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise PipelineInputError(
            f"scheduler is {name!r}; allowed: {', '.join(sorted(SCHEDULERS))}, "
            'or one of them with fields of its own: {"class": name, field: value}.'
        )
    changes = {field: value for field, value in override.items() if field != "class"}
    for field in changes:
        if field not in kind.model_fields:
            raise PipelineInputError(
                f"{name} has no field {field!r}; allowed: {', '.join(sorted(kind.model_fields))}."
            )
    try:
        return kind(**{**published, **changes})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise PipelineInputError(
            f"{name}: {field} is {first['input']!r}; {first['msg'].lower()}."
        ) from None
