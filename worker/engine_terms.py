"""Between the terms of specs and errors and those of the engine, which knows neither."""

import inspect
import logging
from typing import Any

from PIL import Image

from storage.errors import BadOutput, DeviceFailed, InvalidSpec, LatentmillError
from storage.spec import Img2Img, Step, whole_size
from worker.device import first_sentence
from worker.rendering import Latent, Request

logger = logging.getLogger(__name__)

#: The options of a step that only some families have.
OPTIONAL = (
    "aesthetic_score",
    "negative_aesthetic_score",
    "denoising_start",
    "denoising_end",
    "prior_guidance_scale",
    "prior_num_inference_steps",
)


def as_told(error: Exception) -> Exception:
    """An engine's error as one of the error tree."""
    from worker.diffusion import PipelineInputError

    if isinstance(error, LatentmillError):
        return error
    if isinstance(error, PipelineInputError):
        return InvalidSpec(str(error))
    if isinstance(error, FloatingPointError):
        return BadOutput(str(error))
    if isinstance(error, RuntimeError):
        logger.error("the device failed", exc_info=error)
        return DeviceFailed(first_sentence(error))
    return error


def options(step: Step) -> dict[str, Any]:
    """A step's fields as the pipelines take them; those left open are the family's own."""
    given: dict[str, Any] = {
        "negative_prompt": step.negative_prompt or None,
        "num_inference_steps": step.num_inference_steps,
        "guidance_scale": step.guidance_scale,
        "seed": step.seed,
        "width": step.width,
        "height": step.height,
        "scheduler": step.scheduler,
    }
    if isinstance(step, Img2Img):
        given["strength"] = step.strength
    if step.prompt_weighting:
        given["prompt_weighting"] = True
    given |= {name: getattr(step, name, None) for name in OPTIONAL}
    return {name: value for name, value in given.items() if value is not None}


def arguments(request: Request) -> dict[str, Any]:
    """What a pipeline's `begin` is given for a request."""
    source = request.source
    image = source.values if isinstance(source, Latent) else source
    return {"prompt": request.step.prompt, "image": image, **options(request.step)}


def settled(pipe: Any, step: Step) -> dict[str, Any]:
    """What the step ran with of all that its fields may leave open to the family."""
    parameters = inspect.signature(pipe.prepare).parameters.values()
    own = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    found = own | options(step)
    names = ("num_inference_steps", "guidance_scale", "strength", *OPTIONAL)
    return {n: found[n] for n in names if found.get(n) is not None and hasattr(step, n)}


def result_size(
    step: Step, source: Image.Image | Latent | None, scale: int
) -> tuple[int | None, int | None]:
    """Width and height that a step asks for; None where they are the model's own."""
    own: tuple[int | None, int | None] = None, None
    if isinstance(source, Latent):
        own = source.values.shape[2] * scale, source.values.shape[1] * scale
    elif source is not None:
        own = whole_size(*source.size)
    return step.width or own[0], step.height or own[1]


def warnings(pipe: Any, step: Step) -> list[str]:
    """What the result should say of a step that ran otherwise than its fields ask."""
    return [
        f"{name} is longer than the model's 77 tokens; not used: {cut!r}"
        for name, text in (("prompt", step.prompt), ("negative_prompt", step.negative_prompt))
        if (cut := pipe.cut_off(text, step.prompt_weighting))
    ]
