"""`/v1/jobs`: enter jobs, look at them, get their pictures, end them."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from producer.api import examples
from producer.api.entry import enter
from producer.api.gate import Caller, Reader, Submitter
from producer.api.mill import Mill, mill_of
from producer.api.problems import responses
from producer.api.shapes import Accepted, CancelOutcome, Counts, JobPage, JobShape
from producer.api.uploads import is_form, keep_upload, read_form, with_picture
from producer.description import describe
from storage.errors import InvalidSpec, NotFound, NotReady
from storage.inputs import Kept
from storage.jobs import Selection, State
from storage.spec import Spec, parse_spec

router = APIRouter(tags=["jobs"])

JobId = Annotated[
    str,
    Path(
        description="A job's id, or the beginning of it: 6 characters or more.",
        min_length=1,
        max_length=64,
        examples=["01k9zt3v8m4w2q6n7r5s1x0yab"],
    ),
]
TheMill = Annotated[Mill, Depends(mill_of)]


@router.post(
    "/v1/jobs",
    status_code=202,
    response_model=Accepted,
    responses=responses(400, 401, 403, 409, 413, 422, 429, 503),
    openapi_extra={"requestBody": examples.SUBMISSION},
)
async def submit(
    request: Request,
    mill: TheMill,
    caller: Submitter,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=200,
            description="The spec's `key`: the same key and spec give the job that there is.",
        ),
    ] = None,
) -> JSONResponse:
    """Enter a job: its spec as JSON, or a form with the spec and the picture it begins from."""
    spec, picture = await _asked(request, mill, caller)
    if idempotency_key is not None:
        spec = _with_key(spec, idempotency_key)
    entered = await enter(mill, caller, spec, picture)
    request.state.job_id = entered.id
    place = f"{str(request.base_url).rstrip('/')}/v1/jobs/{entered.id}"
    body = {
        "id": entered.id,
        "created": entered.created,
        "status_url": place,
        "result_url": f"{place}/result",
        "cancel_url": place,
        "events_url": f"{place}/events",
    }
    return JSONResponse(body, 202, headers={"Location": place})


@router.get("/v1/jobs", response_model=JobPage, responses=responses(401, 403, 422, 429, 503))
def list_jobs(
    mill: TheMill,
    caller: Reader,
    state: State | None = None,
    batch: Annotated[str | None, Query(max_length=200)] = None,
    label: Annotated[
        str | None, Query(max_length=401, description="name=value", examples=["set=train"])
    ] = None,
    cursor: Annotated[
        str | None, Query(max_length=64, description="`next_cursor` of the page before.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> JSONResponse:
    """Jobs, newest first."""
    found = mill.client.ledger.jobs(
        state=state,
        batch=batch,
        label=_pair(label),
        before=cursor.lower() if cursor else None,
        limit=limit,
        owner=caller.sees,
    )
    more = found[-1].id if len(found) == limit else None
    return JSONResponse({"jobs": [describe(job) for job in found], "next_cursor": more})


@router.get("/v1/counts", response_model=Counts, responses=responses(401, 403, 429, 503))
def count_jobs(mill: TheMill, caller: Reader) -> JSONResponse:
    """How many jobs are in each state."""
    return JSONResponse(mill.client.ledger.counts(owner=caller.sees))


@router.get(
    "/v1/jobs/{job_id}", response_model=JobShape, responses=responses(401, 403, 404, 422, 429, 503)
)
def show(request: Request, mill: TheMill, caller: Reader, job_id: JobId) -> JSONResponse:
    """All that is known about a job."""
    request.state.job_id = job_id
    return JSONResponse(describe(mill.client.ledger.job(job_id, caller.sees)))


@router.get(
    "/v1/jobs/{job_id}/result",
    status_code=307,
    response_class=Response,
    responses={
        200: {"description": "The picture.", "content": {"image/png": {}}},
        307: {"description": "The picture's place, for an hour."},
        **responses(401, 403, 404, 409, 422, 429, 503),
    },
)
def result(
    request: Request,
    mill: TheMill,
    caller: Reader,
    job_id: JobId,
    redirect: Annotated[
        bool, Query(description="false: the picture itself instead of a link to it.")
    ] = True,
) -> Response:
    """The picture of the last step."""
    request.state.job_id = job_id
    job = mill.client.ledger.job(job_id, caller.sees)
    if job.state in (State.QUEUED, State.RUNNING):
        raise NotReady(f"job {job.id} has no picture yet: it is {job.state}")
    if job.artifact is None or job.state is not State.SUCCEEDED:
        why = f" ({job.error_code}: {job.error})" if job.error_code else ""
        raise NotFound(f"job {job.id} has no picture: it is {job.state}{why}")
    if redirect:
        return RedirectResponse(mill.client.objects.url(job.artifact), 307)
    return Response(mill.client.objects.get(job.artifact), media_type="image/png")


@router.delete(
    "/v1/jobs/{job_id}",
    response_model=CancelOutcome,
    responses=responses(401, 403, 404, 422, 429, 503),
)
def cancel(request: Request, mill: TheMill, caller: Submitter, job_id: JobId) -> JSONResponse:
    """End a job: at once while it waits, at its next step boundary while it runs."""
    request.state.job_id = job_id
    (answer,) = mill.client.ledger.cancel(Selection(ids=(job_id,), owner=caller.sees))
    return JSONResponse({"id": answer.id, "outcome": answer.outcome, "state": answer.state})


@router.post(
    "/v1/jobs/{job_id}/retry",
    response_model=JobShape,
    responses=responses(401, 403, 404, 422, 429, 503),
)
def retry(request: Request, mill: TheMill, caller: Submitter, job_id: JobId) -> JSONResponse:
    """Queue a failed or canceled job again; one in another state stays as it is."""
    request.state.job_id = job_id
    ledger = mill.client.ledger
    again = ledger.retry(Selection(ids=(job_id,), owner=caller.sees))
    job = ledger.job(job_id, caller.sees)
    if again:
        mill.inviter.call(job.pool)
    return JSONResponse(describe(job))


async def _asked(request: Request, mill: Mill, caller: Caller) -> tuple[Spec, Kept | None]:
    if not is_form(request):
        return parse_spec(await request.body()), None
    async with read_form(request) as (text, file):
        if file is None:
            return parse_spec(text), None
        with_picture(text, "inputs/x")  # what is wrong with it comes to light before the upload
        most = mill.client.settings.max_image_pixels
        if caller.key is not None and caller.key.max_pixels is not None:
            most = min(most, caller.key.max_pixels)
        picture = await keep_upload(file, mill.client.objects, most)
    return parse_spec(with_picture(text, picture.key)), picture


def _with_key(spec: Spec, key: str) -> Spec:
    if spec.key is not None and spec.key != key:
        raise InvalidSpec(f"key: {spec.key!r} is not the Idempotency-Key ({key!r})")
    return parse_spec({**spec.model_dump(), "key": key})


def _pair(label: str | None) -> tuple[str, str] | None:
    if label is None:
        return None
    name, equals, value = label.partition("=")
    if not (name and equals and value):
        raise InvalidSpec(f"label: {label!r} is not of the form name=value")
    return name, value
