"""Firings: what a schedule's due times become, each exactly once."""

import logging
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, delete, func, or_, select, text, update

from storage.batch_tables import batches
from storage.clock import Now
from storage.cron import Cron
from storage.database import insert
from storage.errors import ClaimLost, InvalidSpec, WorkerLost
from storage.schedule_tables import IS_OPEN, firings, schedules
from storage.tables import IS_DELAYED, IS_READY, IS_RUNNING, jobs

logger = logging.getLogger(__name__)

#: Seconds after which a due time counts as missed: nothing was there to fire it.
GRACE = 300.0
#: Seconds that a claim holds unless it is renewed.
LEASE = 60.0
#: Times that a firing is begun before it is given up.
MOST_ATTEMPTS = 5
#: Firings that the history of a schedule keeps.
KEPT = 1000

AnyRow = Row[*tuple[Any, ...]]


class FiringState(StrEnum):
    WAITING = "waiting"  #: for a worker, or for the batch of the firing before
    RUNNING = "running"  #: its batch is being submitted
    DONE = "done"  #: its batch is in the ledger, and runs or has run
    FAILED = "failed"  #: for good; `error_code` says why
    SKIPPED = "skipped"  #: by one of its schedule's policies; `error` says which


@dataclass(frozen=True, kw_only=True)
class Firing:
    """One due time of a schedule, and what became of it. Times are seconds since the epoch."""

    schedule: str
    due_at: float
    state: FiringState
    #: The name of its batch.
    batch: str
    attempt: int
    worker: str | None
    #: Rows of its batch; those of them that led to jobs, and those that could not. The others had
    #: been done before.
    rows: int | None
    jobs: int | None
    refused: int | None
    error_code: str | None
    error: str | None
    started_at: float | None
    finished_at: float | None


def has_work(connection: Connection) -> bool:
    """Whether there is anything to plan or to claim: a look that locks nothing."""
    due = select(schedules.c.name).where(
        schedules.c.next_at <= Now(), schedules.c.paused.is_(False)
    )
    free = select(firings.c.schedule).where(
        IS_OPEN, or_(firings.c.lease_until.is_(None), firings.c.lease_until < Now())
    )
    return any(connection.execute(query.limit(1)).first() for query in (due, free))


def plan(connection: Connection) -> list[Firing]:
    """Enter the due times that have come; of several that passed unseen, the last one."""
    now = connection.execute(select(Now())).scalar_one()
    due = connection.execute(
        select(schedules)
        .where(schedules.c.next_at <= now, schedules.c.paused.is_(False))
        .order_by(schedules.c.name)
        .with_for_update(skip_locked=True)
    ).all()
    entered = []
    for schedule in due:
        try:
            cron = Cron(schedule.cron, schedule.timezone)
        except InvalidSpec as error:  # this host may have older time zones than the others
            logger.error("schedule %s: %s", schedule.name, error)
            continue
        last = cron.last(schedule.next_at, now)
        if last is not None:
            entered += enter(connection, schedule, last, now)
        connection.execute(
            update(schedules)
            .where(schedules.c.name == schedule.name)
            .values(next_at=cron.next(now))
        )
    return entered


def enter(connection: Connection, schedule: AnyRow, due_at: float, now: float) -> list[Firing]:
    """Enter one due time, to be fired or skipped; nothing if it is there already."""
    if now - due_at > GRACE and schedule.misfire == "skip":
        why: str | None = "no worker was there at its time"
    else:
        why = _in_its_way(connection, schedule)
    state = FiringState.WAITING if why is None else FiringState.SKIPPED
    values = {
        "schedule": schedule.name,
        "due_at": due_at,
        "state": state,
        "batch": f"{schedule.name}-{_stamp(due_at)}",
        "attempt": 0,
        "error": why,
        "finished_at": None if why is None else now,
    }
    statement = insert(connection, firings).values(values).on_conflict_do_nothing()
    made = connection.execute(statement.returning(firings)).all()
    _forget_oldest(connection, schedule.name)
    return [_firing(row) for row in made]


def claim(connection: Connection, worker: str) -> Firing | None:
    """Take the firing that has been due for longest, and that nobody owns, for LEASE seconds."""
    rows = connection.execute(
        select(firings, schedules.c.overlap)
        .join(schedules)
        .where(text("schedule_firings.state IN ('waiting', 'running')"))
        .where(or_(firings.c.lease_until.is_(None), firings.c.lease_until < Now()))
        .order_by(firings.c.due_at)
        .with_for_update(skip_locked=True, of=firings)
    ).all()
    for row in rows:
        if row.attempt >= MOST_ATTEMPTS:
            why = row.error or f"worker {row.worker} vanished"
            message = f"given up after {row.attempt} attempts: {why}"
            ended = {"state": FiringState.FAILED, "finished_at": Now(), "lease_until": None}
            code = row.error_code or WorkerLost.code
            _change(connection, row, **ended, error_code=code, error=message)
        elif row.state == FiringState.RUNNING or not _waits(connection, row):
            started = func.coalesce(firings.c.started_at, Now())
            return _change(
                connection, row, state=FiringState.RUNNING, attempt=row.attempt + 1, worker=worker,
                lease_until=Now() + LEASE, started_at=started, error_code=None, error=None,
            )  # fmt: skip
    return None


def change(connection: Connection, firing: Firing, **values: Any) -> Firing:
    """What its owner writes; raises ClaimLost once it has another one, or is gone."""
    changed = connection.execute(
        update(firings)
        .where(*_is(firing), firings.c.attempt == firing.attempt)
        .where(firings.c.state == FiringState.RUNNING)
        .values(**values)
        .returning(firings)
    ).one_or_none()
    if changed is None:
        raise ClaimLost(f"another worker fires schedule {firing.schedule}, or it was removed")
    return _firing(changed)


def newest(connection: Connection, schedule: str, limit: int) -> list[Firing]:
    """Those of a schedule, the last due time first."""
    query = select(firings).where(firings.c.schedule == schedule)
    rows = connection.execute(query.order_by(firings.c.due_at.desc()).limit(limit))
    return [_firing(row) for row in rows]


def one(connection: Connection, schedule: str, due_at: float) -> Firing | None:
    query = select(firings).where(firings.c.schedule == schedule, firings.c.due_at == due_at)
    row = connection.execute(query).one_or_none()
    return None if row is None else _firing(row)


def _firing(row: AnyRow) -> Firing:
    known = {field.name: row._mapping[field.name] for field in fields(Firing)}
    return Firing(**{**known, "state": FiringState(row.state)})


def _in_its_way(connection: Connection, schedule: AnyRow) -> str | None:
    """Why a due time is not entered, by the schedule's overlap policy."""
    before = _before(connection, schedule.name, None)
    if before is None:
        return None
    if schedule.overlap == "queue":
        waits = before.state == FiringState.WAITING
        return f"the firing before, {before.batch}, waits already" if waits else None
    if before.state in (FiringState.WAITING, FiringState.RUNNING):
        return f"the firing before, {before.batch}, is still {before.state}"
    return f"the batch before, {before.batch}, still runs" if _runs(connection, before) else None


def _waits(connection: Connection, row: AnyRow) -> bool:
    """Whether a firing has to wait for the one before it."""
    if row.overlap != "queue":
        return False
    before = _before(connection, row.schedule, row.due_at)
    if before is None:
        return False
    is_open = before.state in (FiringState.WAITING, FiringState.RUNNING)
    return is_open or _runs(connection, before)


def _before(connection: Connection, schedule: str, due_at: float | None) -> AnyRow | None:
    """The last firing that was not skipped, of all or of those before this due time."""
    query = select(firings).where(firings.c.schedule == schedule)
    query = query.where(firings.c.state != FiringState.SKIPPED)
    if due_at is not None:
        query = query.where(firings.c.due_at < due_at)
    return connection.execute(query.order_by(firings.c.due_at.desc()).limit(1)).one_or_none()


def _runs(connection: Connection, firing: AnyRow) -> bool:
    """Whether its batch has jobs that have not ended."""
    # One that was interrupted may have begun several batches of its name.
    ids = select(batches.c.id).where(batches.c.name == firing.batch)
    return any(
        connection.execute(select(jobs.c.id).where(where, jobs.c.batch.in_(ids)).limit(1)).first()
        for where in (IS_READY, IS_RUNNING, IS_DELAYED)
    )


def _stamp(seconds: float) -> str:
    """A point in time as part of a name; one by hand has its milliseconds too."""
    form = "%Y%m%dT%H%M%S" + (f".{round(seconds % 1 * 1000):03}" if seconds % 1 else "")
    return datetime.fromtimestamp(seconds, UTC).strftime(f"{form}Z")


def _forget_oldest(connection: Connection, schedule: str) -> None:
    own = firings.c.schedule == schedule
    newest = select(firings.c.due_at).where(own).order_by(firings.c.due_at.desc())
    edge = connection.execute(newest.offset(KEPT).limit(1)).scalar_one_or_none()
    if edge is not None:
        connection.execute(delete(firings).where(own, firings.c.due_at <= edge))


def _change(connection: Connection, row: AnyRow, **values: Any) -> Firing:
    """A change of a row that this transaction holds."""
    statement = update(firings).where(*_is(row)).values(**values).returning(firings)
    return _firing(connection.execute(statement).one())


def _is(firing: Any) -> tuple[Any, Any]:
    return firings.c.schedule == firing.schedule, firings.c.due_at == firing.due_at
