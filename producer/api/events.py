"""`/v1/events` and `/v1/jobs/{id}/events`: server-sent events."""

import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse

from producer.api.feed import encode_progress, message
from producer.api.gate import Reader
from producer.api.jobs import JobId, TheMill
from producer.api.problems import responses
from storage.events import BEGINNING, ENDS, Place, Progress, read_place
from storage.jobs import Job

router = APIRouter(tags=["events"])

_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events: `queued`, `running`, `step`, `succeeded`, `failed`,"
        " `canceled` with an id, and `progress` without one.",
        "content": {
            "text/event-stream": {
                "example": "id: 0-42\nevent: running\ndata: "
                '{"job_id":"01k9zt3v8m4w2q6n7r5s1x0yab","kind":"running","batch":null,"step":0,'
                '"attempt":1,"error_code":null,"at":1796040000.0}\n\n'
            }
        },
    }
}
LastEventId = Annotated[
    str | None,
    Header(description="The id of the last event that was seen: the stream goes on after it."),
]
#: Seconds after its end at which all of a job's events are sure to be seen.
_SETTLED = 60.0


@router.get(
    "/v1/events",
    response_class=StreamingResponse,
    responses={**_STREAM, **responses(401, 403, 422, 429, 503)},
)
async def all_events(
    mill: TheMill, caller: Reader, last_event_id: LastEventId = None
) -> StreamingResponse:
    """What happens to jobs from now on, or after an event of the last day."""
    place = read_place(last_event_id) if last_event_id else None
    return _stream(mill.feed.watch(owner=caller.sees, job_id=None, after=place))


@router.get(
    "/v1/jobs/{job_id}/events",
    response_class=StreamingResponse,
    responses={
        **_STREAM,
        204: {"description": "It has ended, and nothing follows the last event."},
        **responses(401, 403, 404, 422, 429, 503),
    },
)
async def job_events(
    request: Request,
    mill: TheMill,
    caller: Reader,
    job_id: JobId,
    last_event_id: LastEventId = None,
) -> Response:
    """What has happened to a job and what happens, up to its end."""
    place = read_place(last_event_id) if last_event_id else BEGINNING
    job = await run_in_threadpool(mill.client.ledger.job, job_id, caller.sees)
    request.state.job_id = job.id
    if job.state in ENDS:
        return await _ended(mill, job, place, last_event_id is not None)
    watched = mill.feed.watch(owner=None, job_id=job.id, after=place)
    return _stream(_with_progress(job, watched))


async def _ended(mill: TheMill, job: Job, place: Place, resumed: bool) -> Response:
    left = await run_in_threadpool(mill.feed.events.after, place, job_id=job.id, limit=1)
    if left and left[0].place:
        return _stream(mill.feed.watch(owner=None, job_id=job.id, after=place))
    if resumed and time.time() > (job.finished_at or 0.0) + _SETTLED:
        # A browser's EventSource comes back for ever unless it is told so.
        return Response(status_code=204)
    return _stream(_only(_state(job)))


async def _with_progress(job: Job, watched: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield encode_progress(
        Progress(
            job_id=job.id,
            owner=job.owner,
            step=job.step,
            done=job.progress_done,
            total=job.progress_total,
        )
    )
    async for chunk in watched:
        yield chunk


async def _only(chunk: bytes) -> AsyncIterator[bytes]:
    yield chunk


def _state(job: Job) -> bytes:
    """The state of a job whose events are no longer kept."""
    data = {
        "job_id": job.id,
        "kind": job.state,
        "batch": job.batch,
        "step": job.step,
        "attempt": job.attempt,
        "error_code": job.error_code,
        "at": job.finished_at,
    }
    return message(job.state, data)


def _stream(chunks: AsyncIterator[bytes]) -> StreamingResponse:
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(chunks, media_type="text/event-stream", headers=headers)
