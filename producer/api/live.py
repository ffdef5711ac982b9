"""`/v1/jobs/{id}/live`: a running job as it looks right now."""

import base64

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from producer.api.gate import Reader
from producer.api.jobs import JobId, TheMill
from producer.api.problems import responses
from storage.jobs import State
from storage.live import look

router = APIRouter(tags=["jobs"])


class LiveShape(BaseModel):
    """What a worker showed of a job within the last seconds."""

    step: int = Field(description="Index of the step that runs.")
    done: int = Field(description="Denoise steps that it has done.")
    total: int
    preview: str | None = Field(description="A small JPEG of what the latent shows, in Base64.")


@router.get(
    "/v1/jobs/{job_id}/live",
    response_model=LiveShape,
    responses={
        204: {"description": "It does not run, or nothing has been shown yet: ask again."},
        **responses(401, 403, 404, 422, 429, 503),
    },
)
def live(request: Request, mill: TheMill, caller: Reader, job_id: JobId) -> Response:
    """The step of a running job and a small preview; asking makes its worker go on showing it.

    Workers show what is asked for about three times a second.
    """
    request.state.job_id = job_id
    job = mill.client.ledger.job(job_id, caller.sees)
    found = look(mill.client.broker, job.id) if job.state is State.RUNNING else None
    if found is None:
        return Response(status_code=204)
    preview = base64.b64encode(found.preview).decode() if found.preview else None
    return JSONResponse(
        {"step": found.step, "done": found.done, "total": found.total, "preview": preview},
        headers={"Cache-Control": "no-store"},
    )
