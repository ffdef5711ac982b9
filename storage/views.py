"""Reading the ledger: one job, pages of jobs, counts, workers."""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, select

from storage.clock import Now
from storage.errors import NotFound
from storage.jobs import Attempt, Job, State, StepRecord, Worker
from storage.spec import parse_spec
from storage.tables import attempts, jobs, labels, steps, workers

AnyRow = Row[*tuple[Any, ...]]

ID_LENGTH = 26
MIN_PREFIX = 6


def job(connection: Connection, job_id: str) -> Job:
    return _with_history(connection, [_row_of(connection, job_id)])[0]


def job_page(
    connection: Connection,
    state: State | None,
    label: tuple[str, str] | None,
    limit: int,
    before: str | None,
) -> list[Job]:
    """Newest first."""
    query = select(jobs).order_by(jobs.c.id.desc()).limit(limit)
    if state is not None:
        query = query.where(jobs.c.state == state)
    if before is not None:
        query = query.where(jobs.c.id < before)
    if label is not None:
        name, value = label
        query = query.where(
            jobs.c.id.in_(
                select(labels.c.job_id).where(labels.c.name == name, labels.c.value == value)
            )
        )
    return _with_history(connection, list(connection.execute(query)))


def counts(connection: Connection, pool: str | None) -> dict[State, int]:
    """How many jobs are in each state; states without jobs are there with 0."""
    query = select(jobs.c.state, func.count()).group_by(jobs.c.state)
    if pool is not None:
        query = query.where(jobs.c.pool == pool)
    found = {State(state): count for state, count in connection.execute(query)}
    return {state: found.get(state, 0) for state in State}


def step_records(
    connection: Connection, job_ids: Sequence[str]
) -> dict[str, tuple[StepRecord, ...]]:
    """The finished steps of jobs, in order."""
    query = select(steps).where(steps.c.job_id.in_(job_ids)).order_by(steps.c.number)
    found: dict[str, list[StepRecord]] = defaultdict(list)
    for row in connection.execute(query):
        found[row.job_id].append(
            StepRecord(
                index=row.number,
                artifact=row.artifact,
                carry=row.carry,
                carry_kind=row.carry_kind,
                details=json.loads(row.details),
                finished_at=row.finished_at,
            )
        )
    return {job_id: tuple(records) for job_id, records in found.items()}


def live_workers(connection: Connection, seen_within: float) -> list[Worker]:
    query = select(workers).where(workers.c.seen_at >= Now() - seen_within)
    return [
        Worker(**{**row._mapping, "loaded": tuple(json.loads(row.loaded))})
        for row in connection.execute(query.order_by(workers.c.name))
    ]


def _row_of(connection: Connection, job_id: str) -> AnyRow:
    wanted = job_id.strip().lower()
    query = select(jobs)
    if len(wanted) < ID_LENGTH:
        if len(wanted) < MIN_PREFIX or not wanted.isalnum():
            raise NotFound(
                f"job {job_id!r}: an id has {ID_LENGTH} letters and digits;"
                f" its first {MIN_PREFIX} or more do where no other job has them"
            )
        query = query.where(jobs.c.id.between(wanted, wanted.ljust(ID_LENGTH, "z")))
    else:
        query = query.where(jobs.c.id == wanted)
    rows = list(connection.execute(query.order_by(jobs.c.id).limit(2)))
    if not rows:
        raise NotFound(f"job {job_id!r}: the ledger has none with this id")
    if len(rows) > 1:
        raise NotFound(f"job {job_id!r}: more than one id begins so: give more of it")
    return rows[0]


def _with_history(connection: Connection, rows: Sequence[AnyRow]) -> list[Job]:
    ids = [row.id for row in rows]
    records = step_records(connection, ids)
    tries: dict[str, list[Attempt]] = defaultdict(list)
    query = select(attempts).where(attempts.c.job_id.in_(ids)).order_by(attempts.c.number)
    for row in connection.execute(query):
        values = dict(row._mapping)
        tries[values.pop("job_id")].append(Attempt(**values))
    return [_job(row, records.get(row.id, ()), tuple(tries[row.id])) for row in rows]


def _job(row: AnyRow, records: tuple[StepRecord, ...], tries: tuple[Attempt, ...]) -> Job:
    values = dict(row._mapping)
    del values["key"]  # stands in the spec
    values["state"] = State(values["state"])
    values["spec"] = parse_spec(values["spec"])
    return Job(**values, steps=records, attempts=tries)
