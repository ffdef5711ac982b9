"""`/v1/jobs/{id}/pictures/{name}`: what a job began from and what came of it, as large as asked."""

import io
import mimetypes
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from PIL import Image

from producer.api.gate import Reader
from producer.api.jobs import JobId, TheMill
from producer.api.problems import responses
from storage.errors import NotFound
from storage.inputs import is_url
from storage.jobs import Job
from storage.picture import load_picture

router = APIRouter(tags=["jobs"])

#: A picture of a job never changes: browsers may keep it, nobody between them and us may.
_KEPT = {"Cache-Control": "private, max-age=86400", "X-Content-Type-Options": "nosniff"}


@router.get(
    "/v1/jobs/{job_id}/pictures/{name}",
    response_class=Response,
    responses={
        200: {"description": "The picture.", "content": {"image/*": {}}},
        **responses(401, 403, 404, 422, 429, 503),
    },
)
def picture(
    request: Request,
    mill: TheMill,
    caller: Reader,
    job_id: JobId,
    name: Annotated[
        str,
        Path(
            pattern=r"^(input|result|[0-9]{1,2})$",
            description="`input`, `result`, or the index of a step whose picture was kept.",
            examples=["result"],
        ),
    ],
    width: Annotated[
        int | None,
        Query(ge=16, le=1024, description="Fit into a square of so many pixels, as WebP."),
    ] = None,
) -> Response:
    """A picture of a job: the input as it was given, or a result with its metadata."""
    request.state.job_id = job_id
    job = mill.client.ledger.job(job_id, caller.sees)
    key = _key(job, name)
    if key is None:
        raise NotFound(f"job {job.id} has no picture {name!r}: it is {job.state}")
    data = mill.client.objects.get(key)
    if width is None:
        return Response(data, media_type=mimetypes.guess_type(key)[0], headers=_KEPT)
    small = _small(data, width, mill.client.settings.max_image_pixels)
    return Response(small, media_type="image/webp", headers=_KEPT)


def _key(job: Job, name: str) -> str | None:
    """Where the picture is in the bucket; None: there is none, or not here."""
    if name == "result":
        return job.artifact
    if name != "input":
        return next((step.artifact for step in job.steps if step.index == int(name)), None)
    first = job.spec.steps[0] if job.spec else None
    key: str | None = getattr(first, "image", None)
    if job.steps:
        key = job.steps[0].details.get("input") or key
    return None if key is None or is_url(key) else key


def _small(data: bytes, width: int, max_pixels: int) -> bytes:
    image = load_picture(data, max_pixels)
    image.thumbnail((width, width), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=82)
    return out.getvalue()
