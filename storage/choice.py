"""Which job a worker takes: by priority, then by turn, with regard for what it has loaded."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    exists,
    func,
    select,
    union_all,
    update,
)

from storage.changes import note_end
from storage.clock import Now
from storage.errors import DeadlineExceeded
from storage.fairness import HEAD_START, LONGEST_WAIT, give_turns
from storage.jobs import State
from storage.tables import HAS_DEADLINE, IS_DELAYED, IS_READY, jobs

#: `count_due` counts no further: nobody needs to know by how much there is enough work.
DUE_CAP = 1000


class Best(NamedTuple):
    """A job that stands first among some."""

    priority: int
    turn: int
    next_model: str | None
    overdue: bool


def ready(pool: str) -> ColumnElement[bool]:
    """Queued, for this pool, and its time has come."""
    return and_(IS_READY, jobs.c.pool == pool)


def _is_late() -> ColumnElement[bool]:
    return and_(HAS_DEADLINE, jobs.c.state == State.QUEUED, jobs.c.deadline <= Now())


def _delay_over(pool: str | BindParameter[str]) -> ColumnElement[bool]:
    return and_(IS_DELAYED, jobs.c.pool == pool, jobs.c.run_at <= Now())


#: Asked before every claim, so it is put together once.
_READINESS = select(exists().where(_is_late()), exists().where(_delay_over(bindparam("pool"))))


def count_due(connection: Connection, pool: str) -> int:
    """How many jobs could run now, counted no further than DUE_CAP."""
    waiting = select(jobs.c.id).where(ready(pool)).limit(DUE_CAP).subquery()
    delayed = select(jobs.c.id).where(_delay_over(pool)).limit(DUE_CAP).subquery()
    found = sum(
        connection.scalar(select(func.count()).select_from(some)) or 0
        for some in (waiting, delayed)
    )
    return min(DUE_CAP, found)


def highest_priority(connection: Connection, pool: str) -> int | None:
    """That of the jobs that wait with a turn; None where none does."""
    waiting = select(jobs.c.priority).where(ready(pool))
    return connection.scalar(waiting.order_by(jobs.c.priority.desc()).limit(1))


def make_ready(connection: Connection, pool: str) -> None:
    """Give turns to the jobs whose time has come; fail those whose time is over."""
    late, waits = connection.execute(_READINESS, {"pool": pool}).one()
    if late:
        expire(connection)
    if waits:
        give_turns(connection, pool)


def expire(connection: Connection) -> int:
    """Fail the queued jobs whose deadline has passed; says how many."""
    late = select(jobs.c.id).where(_is_late()).with_for_update(skip_locked=True)
    expired = connection.scalars(
        update(jobs)
        .where(jobs.c.id.in_(late))
        .values(
            state=State.FAILED,
            error_code=DeadlineExceeded.code,
            error="its deadline passed before it had ended",
            finished_at=Now(),
        )
        .returning(jobs.c.id)
    ).all()
    note_end(connection, expired)
    return len(expired)


def preferred(
    connection: Connection, pool: str, prefer: Sequence[str]
) -> ColumnElement[bool] | None:
    """Of which ready jobs to take the first, so that nothing has to be loaded; None: of all.

    Preferred jobs go first, unless a job of the same priority has been due for longer than
    LONGEST_WAIT: then they only go first by HEAD_START turns, and only if they waited as long.
    """
    first = _best(connection, _in_order(ready(pool)))
    if first is None or first.next_model in prefer:
        return None
    mine = ready(pool) & (jobs.c.priority == first.priority)
    some = [_in_order(mine & (jobs.c.next_model == alias)) for alias in dict.fromkeys(prefer)]
    each = union_all(*(select(query.subquery()) for query in some)).subquery()
    best = _best(connection, select(each).order_by(each.c.turn).limit(1))
    if best is None:
        return None
    oldest = select(jobs.c.run_at).where(mine).order_by(jobs.c.run_at).limit(1).scalar_subquery()
    if connection.scalar(select(oldest < Now() - LONGEST_WAIT)) and not (
        best.overdue and best.turn <= first.turn + HEAD_START
    ):
        return None
    return mine & (jobs.c.next_model == best.next_model)


def _in_order(where: ColumnElement[bool]) -> Select[Any]:
    overdue = (jobs.c.run_at < Now() - LONGEST_WAIT).label("overdue")
    return (
        select(jobs.c.priority, jobs.c.turn, jobs.c.next_model, overdue)
        .where(where)
        .order_by(jobs.c.priority.desc(), jobs.c.turn, jobs.c.id)
        .limit(1)
    )


def _best(connection: Connection, query: Select[Any]) -> Best | None:
    row = connection.execute(query).one_or_none()
    return None if row is None else Best(**row._mapping)
