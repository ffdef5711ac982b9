"""Schedules in the ledger: batches that are submitted again at times of a cron expression."""

import json
import re
from dataclasses import dataclass, fields
from typing import Any, Literal

from sqlalchemy import Connection, delete, select, update

from storage import firings
from storage.clock import Now
from storage.cron import Cron
from storage.database import Database, insert
from storage.errors import ClaimLost, InvalidSpec, KeyConflict, NotFound
from storage.firings import LEASE, AnyRow, Firing, FiringState
from storage.schedule_tables import schedules

__all__ = ["Firing", "FiringState", "Misfire", "Overlap", "Schedule", "Schedules"]

#: What becomes of a due time at which nothing was there to fire it: nothing, or it is made up for
#: once, however many have passed.
Misfire = Literal["skip", "run-once"]
#: What becomes of a due time at which the batch before still runs: nothing, or it waits. One waits
#: at the most.
Overlap = Literal["skip", "queue"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What is submitted, and when. Times are seconds since the epoch."""

    name: str
    cron: str
    timezone: str
    source: str
    #: In the form in which a recipe is read.
    recipe: dict[str, Any]
    misfire: Misfire
    overlap: Overlap
    paused: bool
    #: None: it never comes again.
    next_at: float | None
    created_at: float


class Schedules:
    """The schedules of one ledger; safe to use from several threads and processes.

    Each method is one short transaction, and raises LedgerUnavailable or NotConfigured as the
    ledger's do.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, url: str) -> "Schedules":
        """Those of the ledger at `sqlite:///path` or `postgresql://…`."""
        return cls(Database(url))

    def close(self) -> None:
        self._database.close()

    # Asking

    def add(
        self,
        *,
        name: str,
        cron: str,
        source: str,
        recipe: dict[str, Any],
        timezone: str = "UTC",
        misfire: Misfire = "run-once",
        overlap: Overlap = "skip",
    ) -> Schedule:
        """Enter a schedule; its first due time is the next. Raises InvalidSpec or KeyConflict."""
        if not _NAME.fullmatch(name):
            raise InvalidSpec(
                f"name: {name!r}: 1 to 80 letters, digits, '.', '_' and '-', beginning with a"
                " letter or digit"
            )
        times = Cron(cron, timezone)
        with self._database.writing() as connection:
            now = connection.execute(select(Now())).scalar_one()
            values = {
                "name": name,
                "cron": cron,
                "timezone": timezone,
                "source": source,
                "recipe": json.dumps(recipe, ensure_ascii=False),
                "misfire": misfire,
                "overlap": overlap,
                "paused": False,
                "next_at": _required(times, now),
                "created_at": now,
            }
            statement = insert(connection, schedules).values(values).on_conflict_do_nothing()
            if not connection.execute(statement.returning(schedules.c.name)).all():
                raise KeyConflict(f"name: there is a schedule {name!r} already: remove it first")
            return _find(connection, name)

    def all(self) -> list[Schedule]:
        """All of them, by name."""
        with self._database.reading() as connection:
            rows = connection.execute(select(schedules).order_by(schedules.c.name))
            return [_schedule(row) for row in rows]

    def find(self, name: str) -> Schedule:
        """A schedule by its name; raises NotFound."""
        with self._database.reading() as connection:
            return _find(connection, name)

    def pause(self, name: str) -> Schedule:
        """Let its due times pass by; what has been fired goes on."""
        with self._database.writing() as connection:
            _change(connection, name, paused=True)
            return _find(connection, name)

    def resume(self, name: str) -> Schedule:
        """Go on with the next due time: those that passed meanwhile were not missed."""
        with self._database.writing() as connection:
            found = _find(connection, name)
            if found.paused:
                now = connection.execute(select(Now())).scalar_one()
                following = Cron(found.cron, found.timezone).next(now)
                _change(connection, name, paused=False, next_at=following)
            return _find(connection, name)

    def remove(self, name: str) -> None:
        """Forget it and its history; its batches stay."""
        with self._database.writing() as connection:
            _find(connection, name)
            connection.execute(delete(schedules).where(schedules.c.name == name))

    def run_now(self, name: str) -> Firing:
        """Make this moment a due time, paused or not; the overlap policy holds as ever."""
        with self._database.writing() as connection:
            _find(connection, name)
            row = connection.execute(
                select(schedules).where(schedules.c.name == name).with_for_update()
            ).one()
            now = connection.execute(select(Now())).scalar_one()
            made = firings.enter(connection, row, round(now, 3), now)
            if not made:
                raise KeyConflict(f"schedule {name!r} was fired within this very millisecond")
            return made[0]

    def history(self, name: str, limit: int = 20) -> list[Firing]:
        """Its firings, newest first; raises NotFound."""
        with self._database.reading() as connection:
            _find(connection, name)
            return firings.newest(connection, name, limit)

    # Firing

    def plan(self) -> list[Firing]:
        """Enter the due times that have come, each once whoever comes first; see storage.firings.

        Of several that have passed with nobody there, the last one alone.
        """
        with self._database.writing() as connection:
            return firings.plan(connection)

    def has_work(self) -> bool:
        """Whether `plan` or `claim` may find anything."""
        with self._database.reading() as connection:
            return firings.has_work(connection)

    def claim(self, worker: str) -> Firing | None:
        """Own the next firing for LEASE seconds: a new one, or one whose owner has vanished."""
        with self._database.writing() as connection:
            return firings.claim(connection, worker)

    def claimed(self, name: str, due_at: float, attempt: int) -> Firing:
        """What was claimed, in the process that is to do it; raises ClaimLost."""
        with self._database.reading() as connection:
            found = firings.one(connection, name, due_at)
        if found is None or (found.state, found.attempt) != (FiringState.RUNNING, attempt):
            raise ClaimLost(f"another worker fires schedule {name}, or it was removed")
        return found

    # Each of these raises ClaimLost once the firing has another owner.

    def renew(self, firing: Firing) -> Firing:
        """Own it for LEASE seconds from now."""
        with self._database.writing() as connection:
            return firings.change(connection, firing, lease_until=Now() + LEASE)

    def finish(self, firing: Firing, *, rows: int, jobs: int, refused: int) -> Firing:
        """Its batch is in the ledger."""
        with self._database.writing() as connection:
            return firings.change(
                connection, firing, state=FiringState.DONE, rows=rows, jobs=jobs, refused=refused,
                finished_at=Now(), lease_until=None,
            )  # fmt: skip

    def fail(
        self, firing: Firing, *, code: str, message: str, retry_in: float | None = None
    ) -> Firing:
        """End it, or leave it to any worker in so many seconds."""
        if retry_in is None:
            left: dict[str, Any] = {
                "state": FiringState.FAILED, "finished_at": Now(), "lease_until": None,
            }  # fmt: skip
        else:
            left = {"lease_until": Now() + retry_in}
        with self._database.writing() as connection:
            return firings.change(connection, firing, error_code=code, error=message, **left)


def _required(cron: Cron, now: float) -> float:
    found = cron.next(now)
    if found is None:
        raise InvalidSpec(f"cron: {cron.expression!r} never comes")
    return found


def _find(connection: Connection, name: str) -> Schedule:
    row = connection.execute(select(schedules).where(schedules.c.name == name)).one_or_none()
    if row is None:
        raise NotFound(f"schedule {name!r}: the ledger has none of this name")
    return _schedule(row)


def _change(connection: Connection, name: str, **values: Any) -> None:
    _find(connection, name)
    connection.execute(update(schedules).where(schedules.c.name == name).values(**values))


def _schedule(row: AnyRow) -> Schedule:
    known = {field.name: row._mapping[field.name] for field in fields(Schedule)}
    return Schedule(**{**known, "recipe": json.loads(row.recipe)})
