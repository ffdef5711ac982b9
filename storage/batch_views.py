"""Reading batches: what has become of their rows."""

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, case, func, null, select

from storage.batch_tables import batch_rows
from storage.clock import Now
from storage.jobs import State
from storage.tables import jobs, steps

#: The time of jobs that wait for a release: the end of the year 9999.
HELD = 253_402_300_799.0
#: Seconds over which the present speed is measured.
LATELY = 60.0


class Status(StrEnum):
    """What has become of a row."""

    HELD = "held"  #: waits for `latentmill batch release`
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"  #: its job did, or it could not become one
    CANCELED = "canceled"
    SKIPPED = "skipped"  #: an equal row's job, of this batch or an earlier one, has succeeded
    LOST = "lost"  #: the ledger no longer has its job


OPEN = (Status.HELD, Status.QUEUED, Status.RUNNING)


@dataclass(frozen=True, kw_only=True)
class BatchRow:
    """A row of a batch, and what has become of it."""

    number: int
    place: str
    #: What its result is called: a relative path without ending. None: it could not be read.
    name: str | None
    entry: str | None
    variant: str
    file: str | None
    cells: dict[str, Any]
    status: Status
    code: str | None
    reason: str | None
    job_id: str | None
    #: Key of its result.
    artifact: str | None
    started_at: float | None
    finished_at: float | None


class Result(NamedTuple):
    """A job that has succeeded, for so many rows of a batch."""

    job_id: str
    artifact: str | None
    rows: int


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many rows have become what."""

    statuses: dict[Status, int]
    #: Failed rows by their code.
    codes: dict[str, int] = field(default_factory=dict)
    #: Rows whose jobs succeeded within the last `LATELY` seconds.
    lately: int = 0
    #: When the first of the batch's own jobs began.
    began_at: float | None = None
    now: float = 0.0

    @property
    def rows(self) -> int:
        return sum(self.statuses.values())

    @property
    def open(self) -> int:
        return sum(self.statuses[status] for status in OPEN)


IS_DONE = jobs.c.state == State.SUCCEEDED
#: A row's Status in SQL, where rows are joined with their jobs.
STATUS: ColumnElement[str] = case(
    (batch_rows.c.outcome == "failed", Status.FAILED),
    (jobs.c.id.is_(None), Status.LOST),
    (IS_DONE & (batch_rows.c.outcome == "skipped"), Status.SKIPPED),
    ((jobs.c.state == State.QUEUED) & (jobs.c.run_at >= HELD), Status.HELD),
    else_=jobs.c.state,
)
CODE: ColumnElement[str] = func.coalesce(batch_rows.c.code, jobs.c.error_code)
_LAST_ARTIFACT = (
    select(steps.c.artifact)
    .where(steps.c.job_id == jobs.c.id, IS_DONE)
    .order_by(steps.c.number.desc())
    .limit(1)
    .correlate(jobs)
    .scalar_subquery()
)
_WITH_JOBS = batch_rows.outerjoin(jobs, jobs.c.id == batch_rows.c.job_id)


def rows(batch_id: str) -> Select[Any]:
    """The rows of a batch with their jobs."""
    return (
        select(
            batch_rows.c.number,
            batch_rows.c.place,
            batch_rows.c.entry,
            batch_rows.c.variant,
            batch_rows.c.file,
            batch_rows.c.cells,
            STATUS.label("status"),
            CODE.label("code"),
            func.coalesce(batch_rows.c.reason, jobs.c.error).label("reason"),
            jobs.c.id.label("job_id"),
            _LAST_ARTIFACT.label("artifact"),
            jobs.c.started_at,
            jobs.c.finished_at,
        )
        .select_from(_WITH_JOBS)
        .where(batch_rows.c.batch_id == batch_id)
    )


def counts(connection: Connection, batch_id: str) -> Counts:
    """What has become of a batch's rows; reads all of them."""
    is_own = batch_rows.c.outcome == "job"
    is_recent = is_own & IS_DONE & (jobs.c.finished_at > Now() - LATELY)
    each = (
        select(
            STATUS.label("status"),
            case((STATUS == Status.FAILED, CODE), else_=null()).label("code"),
            case((is_recent, 1), else_=0).label("recent"),
            case((is_own, jobs.c.started_at), else_=null()).label("began"),
        )
        .select_from(_WITH_JOBS)
        .where(batch_rows.c.batch_id == batch_id)
        .subquery()
    )
    query = select(
        each.c.status, each.c.code, func.count(), func.sum(each.c.recent), func.min(each.c.began)
    ).group_by(each.c.status, each.c.code)
    statuses = dict.fromkeys(Status, 0)
    codes: dict[str, int] = {}
    lately, began = 0, []
    for status, code, count, recent, first in connection.execute(query):
        statuses[Status(status)] += count
        if code is not None:
            codes[code] = count
        lately += recent
        began += [first] if first is not None else []
    now = connection.execute(select(Now())).scalar_one()
    return Counts(
        statuses=statuses, codes=codes, lately=lately, began_at=min(began, default=None), now=now
    )


def results(connection: Connection, batch_id: str, after: str, limit: int) -> list[Result]:
    """The next jobs that have succeeded, by id, with their pictures' keys and how many rows."""
    query = (
        select(jobs.c.id, func.min(_LAST_ARTIFACT), func.count())
        .select_from(_WITH_JOBS)
        .where(batch_rows.c.batch_id == batch_id, batch_rows.c.job_id > after, IS_DONE)
        .group_by(jobs.c.id)
        .order_by(jobs.c.id)
        .limit(limit)
    )
    return [Result(*row) for row in connection.execute(query)]


def as_row(row: Row[*tuple[Any, ...]]) -> BatchRow:
    values = dict(row._mapping)
    values["cells"] = json.loads(values["cells"] or "{}")
    values["status"] = Status(values["status"])
    values["name"] = row_name(row.entry, row.variant)
    return BatchRow(**values)


def row_name(entry: str | None, variant: str) -> str | None:
    """What a row's result is called."""
    return entry if entry is None or not variant else f"{entry}.{variant}"
