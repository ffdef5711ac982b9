"""What happened to jobs, told in one order that never changes afterwards, and told again for a day.

Ids of rows are given out before their transactions commit, so a reader that went by ids alone could
pass by one that commits late. On Postgres each event therefore also names its transaction, and only
those are told before which no transaction is still open. SQLite has one writer at a time.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Connection, delete, select, tuple_
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from storage.api_tables import events
from storage.clock import Now
from storage.database import Database
from storage.errors import InvalidSpec
from storage.jobs import State
from storage.tables import IS_RUNNING, jobs

#: Seconds for which events are kept.
KEPT = 86_400.0
#: Events removed in one transaction.
_PRUNED = 10_000

#: A place among the events: those after it have not been seen.
Place = tuple[int, int]
BEGINNING: Place = (0, 0)


@dataclass(frozen=True, kw_only=True)
class Event:
    """A job came to a state, or finished a step."""

    place: Place
    job_id: str
    owner: str
    batch: str | None
    #: A state, or `step`.
    kind: str
    #: The step that comes next: so many are finished.
    step: int
    attempt: int
    error_code: str | None
    at: float


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a running job has come."""

    job_id: str
    owner: str
    step: int
    done: int
    total: int


class _Open(FunctionElement[int]):
    """The first transaction that has not ended; none of those before it can add anything."""

    type = BigInteger()
    inherit_cache = True


@compiles(_Open, "postgresql")
def _postgresql(element: _Open, compiler: SQLCompiler, **_: Any) -> str:
    return "CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS TEXT) AS BIGINT)"


@compiles(_Open, "sqlite")
def _sqlite(element: _Open, compiler: SQLCompiler, **_: Any) -> str:
    return "1"


class Events:
    """Reads events; `storage.changes` writes them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def newest(self) -> Place:
        """The place after all that has been told."""
        query = select(events.c.transaction, events.c.id).where(events.c.transaction < _Open())
        last = query.order_by(events.c.transaction.desc(), events.c.id.desc()).limit(1)
        with self._database.reading() as connection:
            row = connection.execute(last).one_or_none()
        return BEGINNING if row is None else (row[0], row[1])

    def after(
        self,
        place: Place,
        *,
        until: Place | None = None,
        owner: str | None = None,
        job_id: str | None = None,
        limit: int = 500,
    ) -> list[Event]:
        """The next events, in order."""
        at = tuple_(events.c.transaction, events.c.id)
        query = select(events).where(at > place, events.c.transaction < _Open())
        if until is not None:
            query = query.where(at <= until)
        if owner is not None:
            query = query.where(events.c.owner == owner)
        if job_id is not None:
            query = query.where(events.c.job_id == job_id)
        query = query.order_by(events.c.transaction, events.c.id).limit(limit)
        with self._database.reading() as connection:
            return [_event(row._mapping) for row in connection.execute(query)]

    def progress(self) -> list[Progress]:
        """How far the jobs have come that run now."""
        columns = jobs.c.id, jobs.c.owner, jobs.c.step, jobs.c.progress_done, jobs.c.progress_total
        with self._database.reading() as connection:
            found = connection.execute(select(*columns).where(IS_RUNNING)).all()
        return [
            Progress(job_id=job_id, owner=owner, step=step, done=done, total=total)
            for job_id, owner, step, done, total in found
        ]


def prune(connection: Connection) -> int:
    """Forget events of more than a day ago, some at a time; says how many."""
    old = select(events.c.id).where(events.c.at < Now() - KEPT).limit(_PRUNED)
    return connection.execute(delete(events).where(events.c.id.in_(old))).rowcount


def show_place(place: Place) -> str:
    return f"{place[0]}-{place[1]}"


def read_place(text: str) -> Place:
    """A place as `show_place` wrote it; raises InvalidSpec."""
    transaction, dash, number = text.strip().partition("-")
    digits = (transaction + number).isascii() and transaction.isdigit() and number.isdigit()
    if not dash or not digits or len(text) > 40:
        raise InvalidSpec(f"Last-Event-ID: {text[:40]!r} is none that was given out here")
    return min(int(transaction), 2**63 - 1), min(int(number), 2**63 - 1)


def _event(row: Any) -> Event:
    return Event(
        place=(row["transaction"], row["id"]),
        **{
            name: row[name]
            for name in ("job_id", "owner", "batch", "kind", "step", "attempt", "error_code", "at")
        },
    )


#: Kinds that end a job.
ENDS = (State.SUCCEEDED, State.FAILED, State.CANCELED)
