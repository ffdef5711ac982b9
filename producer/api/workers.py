"""`/v1/workers`: who works, on what, and how fast."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from producer.api.gate import Reader
from producer.api.jobs import TheMill
from producer.api.problems import responses
from producer.api.shapes import ID
from producer.description import when
from storage import activity
from storage.activity import LATELY

router = APIRouter(tags=["workers"])


class RunningShape(BaseModel):
    """A job of yours that runs on a worker."""

    id: str = Field(examples=[ID])
    step: int
    done: int
    total: int


class WorkerShape(BaseModel):
    """A worker that reported itself within the last half minute."""

    name: str = Field(examples=["gpu7-ascend-0-4711"])
    device: str = Field(examples=["ascend:0"])
    pool: str = Field(examples=["default"])
    slots: int = Field(description="Jobs in flight at once.", examples=[8])
    busy: int = Field(description="Jobs that it runs now, whoever's they are.")
    running: list[RunningShape]
    loaded: list[str] = Field(description="Models on its device.", examples=[["sdxl"]])
    images_per_second: float = Field(description=f"Over the last {LATELY:.0f} s.")
    started_at: str
    seen_at: str


class Workers(BaseModel):
    workers: list[WorkerShape]


@router.get("/v1/workers", response_model=Workers, responses=responses(401, 403, 429, 503))
def list_workers(mill: TheMill, caller: Reader) -> JSONResponse:
    """The workers that are there, by name."""
    ledger = mill.client.ledger
    running = activity.running(ledger.database)
    pictures = activity.pictures_lately(ledger.database)
    found = []
    for worker in ledger.workers():
        jobs = running.get(worker.name, [])
        seconds = min(LATELY, max(1.0, worker.seen_at - worker.started_at))
        found.append(
            {
                "name": worker.name,
                "device": worker.device,
                "pool": worker.pool,
                "slots": worker.slots,
                "busy": len(jobs),
                "running": [
                    {"id": job.job_id, "step": job.step, "done": job.done, "total": job.total}
                    for job in jobs
                    if caller.sees in (None, job.owner)
                ],
                "loaded": list(worker.loaded),
                "images_per_second": round(pictures.get(worker.name, 0) / seconds, 3),
                "started_at": when(worker.started_at),
                "seen_at": when(worker.seen_at),
            }
        )
    return JSONResponse({"workers": found})
