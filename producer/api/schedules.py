"""`/v1/schedules`: what is submitted again and again, and what came of it."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from producer.api.gate import Admin
from producer.api.jobs import TheMill
from producer.api.mill import Mill
from producer.api.problems import responses
from producer.datasets.recipe import make_recipe
from producer.datasets.submit import read_rows
from producer.description import when
from storage.schedules import Firing, Misfire, Overlap, Schedule, Schedules

router = APIRouter(tags=["schedules"])

#: Firings shown with each schedule.
LAST = 5
Name = Annotated[str, Path(min_length=1, max_length=80, examples=["nightly"])]


class FiringShape(BaseModel):
    """One due time, and what was made of it."""

    due_at: str
    state: str
    batch: str
    rows: int | None
    jobs: int | None
    refused: int | None
    error_code: str | None
    error: str | None


class ScheduleShape(BaseModel):
    name: str = Field(examples=["nightly"])
    cron: str = Field(examples=["0 2 * * *"])
    timezone: str = Field(examples=["Europe/Berlin"])
    source: str
    misfire: Misfire
    overlap: Overlap
    paused: bool
    next_at: str | None
    firings: list[FiringShape] = Field(description=f"The last {LAST}, newest first.")


class ScheduleList(BaseModel):
    schedules: list[ScheduleShape]


class NewSchedule(BaseModel):
    """What is submitted when: the recipe is that of a batch."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(examples=["nightly"])
    cron: str = Field(examples=["0 2 * * *"])
    timezone: str = Field(default="UTC", examples=["Europe/Berlin"])
    source: str = Field(pattern="^s3://", examples=["s3://pictures/incoming/"])
    recipe: dict[str, Any] = Field(examples=[{"model": "demo", "prompt": "a cat, comic style"}])
    misfire: Misfire = "run-once"
    overlap: Overlap = "skip"


_FAILS = responses(401, 403, 404, 409, 422, 429, 503)


@router.get("/v1/schedules", response_model=ScheduleList, responses=responses(401, 403, 429, 503))
def list_schedules(mill: TheMill, caller: Admin) -> JSONResponse:
    """Schedules by name, each with its last firings."""
    schedules = _schedules(mill)
    return JSONResponse(
        {"schedules": [_describe(schedules, schedule) for schedule in schedules.all()]}
    )


@router.post(
    "/v1/schedules",
    status_code=201,
    response_model=ScheduleShape,
    responses=responses(400, 401, 403, 404, 409, 422, 429, 503),
)
def add_schedule(mill: TheMill, caller: Admin, wanted: NewSchedule) -> JSONResponse:
    """Submit what lies in S3 by the clock; what is done already is not done again."""
    recipe = make_recipe(wanted.recipe)
    next(read_rows(mill.client, wanted.source, recipe), None)  # it must be one that can be read
    values = {**wanted.model_dump(), "recipe": recipe.plain()}
    schedules = _schedules(mill)
    return JSONResponse(_describe(schedules, schedules.add(**values)), status_code=201)


@router.delete("/v1/schedules/{name}", status_code=204, responses=_FAILS)
def remove_schedule(mill: TheMill, caller: Admin, name: Name) -> Response:
    """Forget a schedule and its history; its batches stay."""
    _schedules(mill).remove(name)
    return Response(status_code=204)


@router.post("/v1/schedules/{name}/pause", response_model=ScheduleShape, responses=_FAILS)
def pause_schedule(mill: TheMill, caller: Admin, name: Name) -> JSONResponse:
    """Let its due times pass by."""
    schedules = _schedules(mill)
    return JSONResponse(_describe(schedules, schedules.pause(name)))


@router.post("/v1/schedules/{name}/resume", response_model=ScheduleShape, responses=_FAILS)
def resume_schedule(mill: TheMill, caller: Admin, name: Name) -> JSONResponse:
    """Go on with its next due time."""
    schedules = _schedules(mill)
    return JSONResponse(_describe(schedules, schedules.resume(name)))


@router.post("/v1/schedules/{name}/run", response_model=ScheduleShape, responses=_FAILS)
def run_schedule(mill: TheMill, caller: Admin, name: Name) -> JSONResponse:
    """Make this moment a due time; workers submit its batch."""
    schedules = _schedules(mill)
    schedules.run_now(name)
    return JSONResponse(_describe(schedules, schedules.find(name)))


def _schedules(mill: Mill) -> Schedules:
    return Schedules(mill.client.ledger.database)


def _describe(schedules: Schedules, schedule: Schedule) -> dict[str, Any]:
    return {
        "name": schedule.name,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "source": schedule.source,
        "misfire": schedule.misfire,
        "overlap": schedule.overlap,
        "paused": schedule.paused,
        "next_at": when(schedule.next_at),
        "firings": [_fired(firing) for firing in schedules.history(schedule.name, LAST)],
    }


def _fired(firing: Firing) -> dict[str, Any]:
    return {
        "due_at": when(firing.due_at),
        "state": firing.state,
        "batch": firing.batch,
        "rows": firing.rows,
        "jobs": firing.jobs,
        "refused": firing.refused,
        "error_code": firing.error_code,
        "error": firing.error,
    }
