"""Reading the ledger: one job, pages of jobs, counts, workers."""

import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, select

from storage.clock import Now
from storage.errors import InvalidSpec, NotFound
from storage.jobs import Attempt, Job, State, StepRecord, Worker
from storage.spec import parse_spec
from storage.tables import IS_IN_BATCH, IS_OWNED, IS_READY, attempts, jobs, labels, steps, workers

AnyRow = Row[*tuple[Any, ...]]

#: Columns that a job shows as they are.
_SHOWN = {field.name for field in fields(Job)} & set(jobs.c.keys()) - {"spec"}

ID_LENGTH = 26
MIN_PREFIX = 6
#: Ready jobs that are looked at to see which models they want.
DEMAND_CAP = 5000


def job(connection: Connection, job_id: str, owner: str | None) -> Job:
    return _with_history(connection, [_row_of(connection, job_id, owner)])[0]


def job_page(
    connection: Connection,
    state: State | None,
    label: tuple[str, str] | None,
    batch: str | None,
    limit: int,
    before: str | None,
    owner: str | None,
) -> list[Job]:
    """Newest first."""
    query = select(jobs).where(*owned_by(owner)).order_by(jobs.c.id.desc()).limit(limit)
    if state is not None:
        query = query.where(jobs.c.state == state)
    if before is not None:
        query = query.where(jobs.c.id < before)
    if batch is not None:
        query = query.where(IS_IN_BATCH, jobs.c.batch == batch)
    if label is not None:
        query = query.where(has_label(label))
    return _with_history(connection, list(connection.execute(query)))


def jobs_by_id(connection: Connection, ids: Collection[str]) -> dict[str, Job]:
    rows = list(connection.execute(select(jobs).where(jobs.c.id.in_(ids))))
    return {job.id: job for job in _with_history(connection, rows)}


def has_label(label: tuple[str, str]) -> ColumnElement[bool]:
    name, value = label
    return jobs.c.id.in_(
        select(labels.c.job_id).where(labels.c.name == name, labels.c.value == value)
    )


def owned_by(owner: str | None) -> list[ColumnElement[bool]]:
    """Which jobs are the owner's; None: all are."""
    if owner is None:
        return []
    mine = jobs.c.owner == owner
    return [IS_OWNED, mine] if owner else [mine]  # type: ignore[list-item]


def full_id(connection: Connection, job_id: str, owner: str | None = None) -> str:
    """The id that begins so; raises NotFound."""
    found: str = _row_of(connection, job_id, owner).id
    return found


def counts(
    connection: Connection, pool: str | None, batch: str | None, owner: str | None
) -> dict[State, int]:
    """How many jobs are in each state; states without jobs are there with 0."""
    query = select(jobs.c.state, func.count()).where(*owned_by(owner)).group_by(jobs.c.state)
    if pool is not None:
        query = query.where(jobs.c.pool == pool)
    if batch is not None:
        query = query.where(IS_IN_BATCH, jobs.c.batch == batch)
    found = {State(state): count for state, count in connection.execute(query)}
    return {state: found.get(state, 0) for state in State}


def waiting_of(connection: Connection, owner: str, most: int) -> int:
    query = select(jobs.c.id).where(*owned_by(owner), jobs.c.state == State.QUEUED).limit(most)
    return connection.scalar(select(func.count()).select_from(query.subquery())) or 0


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
        Worker(
            **{
                **row._mapping,
                "loaded": tuple(json.loads(row.loaded)),
                "figures": json.loads(row.figures),
            }
        )
        for row in connection.execute(query.order_by(workers.c.name))
    ]


def demand(connection: Connection, pool: str) -> dict[str, int]:
    """How many of the pool's ready jobs begin with each model, counted up to a cap."""
    some = select(jobs.c.next_model).where(IS_READY, jobs.c.pool == pool).limit(DEMAND_CAP)
    found = some.subquery()
    query = select(found.c.next_model, func.count()).group_by(found.c.next_model)
    return {model: count for model, count in connection.execute(query) if model is not None}


def _row_of(connection: Connection, job_id: str, owner: str | None) -> AnyRow:
    wanted = job_id.strip().lower()
    query = select(jobs).where(*owned_by(owner))
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
    values = {name: row._mapping[name] for name in _SHOWN}
    values["state"] = State(values["state"])
    spec, unreadable = None, None
    try:
        spec = parse_spec(row.spec)
    except InvalidSpec as error:
        unreadable = str(error)
    return Job(**values, spec=spec, unreadable=unreadable, steps=records, attempts=tries)
