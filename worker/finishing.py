"""What comes of rows that have taken all of their steps: pictures, or what the next step takes."""

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image

from storage.errors import InvalidSpec
from worker.device import first_sentence
from worker.engine_terms import settled, warnings
from worker.loaded_models import LoadedModels
from worker.passenger import Passenger
from worker.rendering import Latent, Rendered

logger = logging.getLogger(__name__)

Ending = Rendered | Exception


def finish(
    passengers: Sequence[Passenger], pipe: Any, models: LoadedModels
) -> Iterator[tuple[Passenger, Ending]]:
    """What each of some rows of one group ends with; their latents are decoded together."""
    endings: dict[Passenger, Ending] = {}
    handed: dict[Passenger, bool] = {}
    for passenger in passengers:
        try:
            handed[passenger] = takes_latent(passenger, pipe, models)
        except Exception as error:
            endings[passenger] = error
    wanted = [
        passenger
        for passenger, handed_over in handed.items()
        if passenger.request.picture or (passenger.request.following and not handed_over)
    ]
    pictures = dict(decode(wanted, pipe))
    for passenger, handed_over in handed.items():
        picture = pictures.get(passenger)
        if isinstance(picture, Exception):
            endings[passenger] = picture
        else:
            endings[passenger] = rendered(passenger, pipe, picture, handed_over)
    yield from endings.items()


def decode(
    passengers: Sequence[Passenger], pipe: Any
) -> Iterator[tuple[Passenger, Image.Image | Exception]]:
    """Pictures of rows of one group. An error is pinned on its row by halving."""
    try:
        pixels = pipe.decode_together([passenger.row.latent for passenger in passengers])
    except Exception as error:
        if len(passengers) == 1:
            yield passengers[0], error
            return
        logger.warning("decoding %d rows failed: %s", len(passengers), first_sentence(error))
        half = len(passengers) // 2
        yield from decode(passengers[:half], pipe)
        yield from decode(passengers[half:], pipe)
        return
    for passenger, each in zip(passengers, pixels, strict=True):
        try:
            yield passenger, pipe.as_picture(each)
        except FloatingPointError as error:
            yield passenger, error


def rendered(
    passenger: Passenger, pipe: Any, picture: Image.Image | None, handed_over: bool
) -> Ending:
    """The result of a row whose picture, if it is wanted, is decoded."""
    step, values = passenger.request.step, passenger.row.latent
    if step.denoising_end is not None and not handed_over:
        return InvalidSpec(
            "denoising_end: what it leaves is noisy, and the next step cannot go on from it:"
            " its model has another VAE, or its size is another"
        )
    return Rendered(
        picture=picture,
        latent=Latent(values=values, fingerprint=pipe.vae_fingerprint) if handed_over else None,
        width=values.shape[2] * pipe.vae_scale_factor,
        height=values.shape[1] * pipe.vae_scale_factor,
        scheduler=pipe.scheduler_name(step.scheduler),
        options=settled(pipe, step),
        model_revision=pipe.revision,
        vae_fingerprint=pipe.vae_fingerprint,
        seconds=time.monotonic() - passenger.begun,
        resumed_at=passenger.resumed_at,
        warnings=tuple(warnings(pipe, step)),
    )


def takes_latent(passenger: Passenger, pipe: Any, models: LoadedModels) -> bool:
    """Whether the next step can go on from the latent: the same VAE, and no other size."""
    if passenger.request.following is None:
        return False
    step, model = passenger.request.following
    _, *sides = passenger.row.latent.shape
    height, width = (side * pipe.vae_scale_factor for side in sides)
    if (step.width or width, step.height or height) != (width, height):
        return False
    return bool(models.vae_fingerprint(model) == pipe.vae_fingerprint)
