"""A worker loads models before the first job asks for them."""

import logging
import time
from collections.abc import Sequence
from typing import Any

from PIL import Image

from storage.errors import InvalidSpec
from storage.models import Model
from storage.spec import Img2Img, Step, Text2Img
from worker.device_loop import DeviceLoop
from worker.rendering import Rendered, Request

logger = logging.getLogger(__name__)

#: What a model is asked for. Few steps do: each of its parts is compiled at its first call.
WORDS: dict[str, Any] = {"prompt": "warm", "num_inference_steps": 2}


def warm(loop: DeviceLoop, models: Sequence[Model]) -> None:
    """Make a small picture with each model, at the size it was trained for.

    Raises what a job would end with.
    """
    for model in models:
        begun = time.monotonic()
        made = _make(loop, model, Text2Img(model=model.alias, **WORDS), None)
        seconds = time.monotonic() - begun
        logger.info("warm: %s, %dx%d in %.1f s", model.alias, made.width, made.height, seconds)


def _make(loop: DeviceLoop, model: Model, step: Step, source: Image.Image | None) -> Rendered:
    request = Request(
        step=model.fill(step), model=model, source=source, following=None, picture=True
    )
    try:
        return loop.submit(request).result()
    except InvalidSpec:
        if source is not None:
            raise
        # A refiner makes nothing of a prompt alone.
        picture = Image.new("RGB", (1024, 1024), "grey")
        return _make(loop, model, Img2Img(model=model.alias, strength=1.0, **WORDS), picture)
