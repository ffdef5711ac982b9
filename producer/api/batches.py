"""`/v1/batches`: what became of the rows of a dataset, and what shall become of them."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from producer.api.gate import Admin
from producer.api.jobs import TheMill
from producer.api.problems import responses
from producer.api.shapes import ID
from producer.datasets.again import retry_batch
from producer.description import when
from storage.batch_views import LATELY
from storage.batches import Batch, Status
from storage.jobs import Selection

router = APIRouter(tags=["batches"])

BatchId = Annotated[
    str,
    Path(
        description="A batch's id, the beginning of it, or its name.",
        min_length=1,
        max_length=200,
        examples=[ID],
    ),
]


class BatchShape(BaseModel):
    """A dataset's submission."""

    id: str = Field(examples=[ID])
    name: str
    source: str
    created_at: str
    submitted_at: str | None = Field(description="null: rows are still coming in.")
    held: bool = Field(description="All rows but the pilot's wait for a release.")


class BatchList(BaseModel):
    batches: list[BatchShape]


class BatchState(BatchShape):
    """A batch, and what has become of its rows."""

    rows: int
    statuses: dict[Status, int]
    codes: dict[str, int] = Field(description="Failed rows by their code.")
    images_per_second: float = Field(description=f"Over the last {LATELY:.0f} s.")
    began_at: str | None


class RowShape(BaseModel):
    """A row of a batch."""

    number: int
    name: str | None
    place: str
    status: Status
    code: str | None
    reason: str | None
    job_id: str | None


class RowPage(BaseModel):
    rows: list[RowShape]
    next_after: int | None


class Changed(BaseModel):
    jobs: int = Field(description="How many jobs this changed.")


_FAILS = responses(401, 403, 404, 422, 429, 503)


@router.get("/v1/batches", response_model=BatchList, responses=responses(401, 403, 422, 429, 503))
def list_batches(
    mill: TheMill, caller: Admin, limit: Annotated[int, Query(ge=1, le=200)] = 20
) -> JSONResponse:
    """Batches, newest first."""
    found = mill.client.batches.newest(limit)
    return JSONResponse({"batches": [_describe(batch) for batch in found]})


@router.get("/v1/batches/{batch_id}", response_model=BatchState, responses=_FAILS)
def show(mill: TheMill, caller: Admin, batch_id: BatchId) -> JSONResponse:
    """A batch with what has become of its rows, and its failures by code."""
    batch = mill.client.batches.find(batch_id)
    counts = mill.client.batches.counts(batch.id)
    return JSONResponse(
        {
            **_describe(batch),
            "rows": counts.rows,
            "statuses": counts.statuses,
            "codes": counts.codes,
            "images_per_second": round(counts.lately / LATELY, 3),
            "began_at": when(counts.began_at),
        }
    )


@router.get("/v1/batches/{batch_id}/rows", response_model=RowPage, responses=_FAILS)
def list_rows(
    mill: TheMill,
    caller: Admin,
    batch_id: BatchId,
    status: Annotated[list[Status] | None, Query(description="Only these.")] = None,
    after: Annotated[int, Query(ge=-1, description="`next_after` of the page before.")] = -1,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> JSONResponse:
    """Rows by their number in the source."""
    batch = mill.client.batches.find(batch_id)
    found = mill.client.batches.rows(batch.id, statuses=status or (), after=after, limit=limit)
    shown = set(RowShape.model_fields)
    rows = [{name: getattr(row, name) for name in sorted(shown)} for row in found]
    more = found[-1].number if len(found) == limit else None
    return JSONResponse({"rows": rows, "next_after": more})


@router.post("/v1/batches/{batch_id}/retry", response_model=Changed, responses=_FAILS)
def retry(
    mill: TheMill,
    caller: Admin,
    batch_id: BatchId,
    code: Annotated[str | None, Query(max_length=100, description="Only with this code.")] = None,
) -> JSONResponse:
    """Queue its failed and canceled jobs again."""
    batch = mill.client.batches.find(batch_id)
    return JSONResponse({"jobs": retry_batch(mill.client, batch.id, code)})


@router.post("/v1/batches/{batch_id}/cancel", response_model=Changed, responses=_FAILS)
def cancel(mill: TheMill, caller: Admin, batch_id: BatchId) -> JSONResponse:
    """End its jobs that have not ended."""
    batch = mill.client.batches.find(batch_id)
    ended = mill.client.ledger.cancel(Selection(batch=batch.id))
    return JSONResponse({"jobs": len(ended)})


@router.post("/v1/batches/{batch_id}/release", response_model=Changed, responses=_FAILS)
def release(mill: TheMill, caller: Admin, batch_id: BatchId) -> JSONResponse:
    """Let the rows run that waited for their pilot."""
    batch = mill.client.batches.find(batch_id)
    return JSONResponse({"jobs": mill.client.batches.release(batch.id)})


def _describe(batch: Batch) -> dict[str, Any]:
    return {
        "id": batch.id,
        "name": batch.name,
        "source": batch.source,
        "created_at": when(batch.created_at),
        "submitted_at": when(batch.submitted_at),
        "held": batch.held,
    }
