"""How a request becomes a job: everything is checked before anything is stored."""

import contextlib

from fastapi.concurrency import run_in_threadpool

from producer.api.gate import Caller
from producer.api.mill import Mill
from storage import web
from storage.addresses import Exceptions
from storage.errors import InvalidImage, InvalidSpec, LimitExceeded, NotFound
from storage.fetch import check
from storage.inputs import Kept, is_url
from storage.jobs import Asked, Submitted
from storage.models import check_chain, find_model
from storage.spec import Spec


async def enter(mill: Mill, caller: Caller, spec: Spec, picture: Kept | None) -> Submitted:
    """Enter a caller's spec; `picture` is what its first step begins from, if it was uploaded.

    Raises InvalidSpec, InvalidImage, UnknownModel, KeyConflict, LimitExceeded or Unavailable.
    """
    client = mill.client
    size = (picture.width, picture.height) if picture else None
    check_chain(spec.steps, client.models, client.settings, size)
    _check_pixels(caller, spec, size)
    image = getattr(spec.steps[0], "image", None) if picture is None else None
    if image is not None:
        await run_in_threadpool(_check_image, mill, caller, image)
    if spec.webhook_url is not None:
        await run_in_threadpool(_check_webhook, mill, spec.webhook_url)
    if caller.key is not None and caller.key.max_queued is not None:
        await run_in_threadpool(_check_queued, mill, caller.owner, caller.key.max_queued)
    pool = find_model(client.models, spec.steps[0].model, client.settings).pool
    return await mill.desk.submit(Asked(spec=spec, pool=pool, owner=caller.owner))


def _check_pixels(caller: Caller, spec: Spec, size: tuple[int, int] | None) -> None:
    most = caller.key.max_pixels if caller.key else None
    if most is None:
        return
    sizes = [("image", *size)] if size else []
    sizes += [
        (f"steps.{index}", step.width, step.height)
        for index, step in enumerate(spec.steps)
        if step.width and step.height
    ]
    for place, width, height in sizes:
        if width * height > most:
            raise InvalidSpec(
                f"{place}: {width}x{height} is {width * height} pixels;"
                f" this key allows {most} a picture"
            )


def _check_image(mill: Mill, caller: Caller, image: str) -> None:
    """Nobody gets at another's pictures by naming them."""
    settings = mill.client.settings
    own = f"s3://{settings.s3_bucket}/"
    if is_url(image) and not image.startswith(own):
        if not image.startswith("s3://"):
            check(image, Exceptions.parse(settings.allow_private_urls))
        return
    key = image.removeprefix(own)
    missing = InvalidImage(f"image: {image!r} is not in the bucket")
    folder, _, rest = key.partition("/")
    if caller.sees is not None and folder != "inputs":
        # Whoever knows the hash of an input has the input, or was told by one who has.
        if folder != "jobs":
            raise missing
        try:
            mill.client.ledger.job(rest.partition("/")[0], caller.sees)
        except NotFound:
            raise missing from None
    if not mill.client.objects.exists(key):
        raise missing


def _check_webhook(mill: Mill, url: str) -> None:
    # A name that cannot be looked up now may be there when the job ends.
    with contextlib.suppress(web.Unreachable):
        try:
            web.check(url, Exceptions.parse(mill.client.settings.allow_private_urls))
        except web.Refused as error:
            raise InvalidSpec(f"webhook_url: {error}") from None


def _check_queued(mill: Mill, owner: str, most: int) -> None:
    if mill.client.ledger.waiting_of(owner, most) >= most:
        raise LimitExceeded(f"this key allows {most} jobs to wait at once", retry_after=10)
