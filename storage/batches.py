"""Batches in the ledger: made, found, read and released."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, select, update
from sqlalchemy import insert as plain_insert
from ulid import ULID

from storage import batch_entry, batch_views
from storage.batch_entry import Intake
from storage.batch_tables import batch_rows, batches
from storage.batch_views import CODE, HELD, STATUS, BatchRow, Counts, Result, Status, as_row
from storage.clock import Now
from storage.database import Database
from storage.errors import NotFound
from storage.jobs import State
from storage.tables import IS_IN_BATCH, jobs
from storage.views import ID_LENGTH, MIN_PREFIX

__all__ = ["Batch", "BatchRow", "Batches", "Counts", "Result", "Status"]

#: Rows read, and jobs released, in one transaction.
CHUNK = 1000


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one submission of a dataset was asked to do. Times are seconds since the epoch."""

    id: str
    name: str
    source: str
    #: In the form in which a recipe is read.
    recipe: dict[str, Any]
    created_at: float
    #: None: rows are still coming in, or the submission was interrupted.
    submitted_at: float | None
    #: How many rows it has, once all of them are there.
    total: int | None
    #: Numbers of the rows that run first; empty where all do.
    pilot: tuple[int, ...]
    #: Its other rows' jobs wait for a release.
    held: bool


class Batches:
    """The batches of one ledger; safe to use from several threads and processes."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @classmethod
    def open(cls, url: str) -> "Batches":
        """Those of the ledger at `sqlite:///path` or `postgresql://…`."""
        return cls(Database(url))

    def close(self) -> None:
        self.database.close()

    def create(
        self, *, name: str, source: str, recipe: dict[str, Any], pilot: Sequence[int] = ()
    ) -> Batch:
        """An empty batch; with a pilot, all rows but those wait for a release."""
        batch_id = str(ULID()).lower()
        values = {
            "id": batch_id,
            "name": name,
            "source": source,
            "recipe": json.dumps(recipe, ensure_ascii=False),
            "created_at": Now(),
            "pilot": json.dumps(list(pilot)) if pilot else None,
            "held": bool(pilot),
        }
        with self.database.writing() as connection:
            connection.execute(plain_insert(batches).values(**values))
        return self.find(batch_id)

    def finish(self, batch_id: str) -> Batch:
        """All of its rows are there."""
        total = select(func.count()).where(batch_rows.c.batch_id == batch_id).scalar_subquery()
        with self.database.writing() as connection:
            connection.execute(
                update(batches)
                .where(batches.c.id == batch_id)
                .values(submitted_at=Now(), total=total)
            )
        return self.find(batch_id)

    def find(self, given: str) -> Batch:
        """A batch by its id, the beginning of it, or its name (the newest's); raises NotFound."""
        with self.database.reading() as connection:
            return _find(connection, given)

    def newest(self, limit: int = 20) -> list[Batch]:
        with self.database.reading() as connection:
            query = select(batches).order_by(batches.c.id.desc()).limit(limit)
            return [_batch(row) for row in connection.execute(query)]

    def counts(self, batch_id: str) -> Counts:
        """What has become of its rows; reads all of them."""
        with self.database.reading() as connection:
            return batch_views.counts(connection, batch_id)

    def rows(
        self,
        batch_id: str,
        *,
        statuses: Sequence[Status] = (),
        numbers: Sequence[int] = (),
        code: str | None = None,
        after: int = -1,
        limit: int = CHUNK,
    ) -> list[BatchRow]:
        """A page of its rows by number; the last one's number as `after` gives the next."""
        query = batch_views.rows(batch_id).where(batch_rows.c.number > after)
        if numbers:
            query = query.where(batch_rows.c.number.in_(numbers))
        if code is not None:
            query = query.where(CODE.in_([code]))
        if statuses:
            query = query.where(STATUS.in_(statuses))
        query = query.order_by(batch_rows.c.number).limit(limit)
        with self.database.reading() as connection:
            return [as_row(row) for row in connection.execute(query)]

    def all_rows(self, batch_id: str, statuses: Sequence[Status] = ()) -> Iterator[BatchRow]:
        """Its rows by number, a page of them in memory."""
        after = -1
        while page := self.rows(batch_id, statuses=statuses, after=after):
            yield from page
            after = page[-1].number

    def results(self, batch_id: str) -> Iterator[Result]:
        """The jobs of its rows that have succeeded, by id; a page of them in memory."""
        after = ""
        while True:
            with self.database.reading() as connection:
                page = batch_views.results(connection, batch_id, after, CHUNK)
            yield from page
            if len(page) < CHUNK:
                return
            after = page[-1].job_id

    def settled(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys whose jobs have succeeded, or will run by themselves."""
        with self.database.reading() as connection:
            return batch_entry.settled(connection, keys)

    def intake(self, batch_id: str) -> Intake:
        """What its rows enter by."""
        return Intake(self.database, batch_id)

    def release(self, batch_id: str) -> int:
        """Let the jobs run that were held; says how many. Repeating it is harmless."""
        released = 0
        while True:
            with self.database.writing() as connection:
                some = (
                    select(jobs.c.id)
                    .where(IS_IN_BATCH, jobs.c.batch == batch_id)
                    .where(jobs.c.state == State.QUEUED, jobs.c.run_at >= HELD)
                    .limit(CHUNK)
                )
                changed = connection.execute(
                    update(jobs).where(jobs.c.id.in_(some)).values(run_at=Now())
                ).rowcount
                released += changed
                if changed < CHUNK:
                    connection.execute(
                        update(batches).where(batches.c.id == batch_id).values(held=False)
                    )
                    return released


def _find(connection: Connection, given: str) -> Batch:
    wanted = given.strip()
    query = select(batches).where(batches.c.name == wanted).order_by(batches.c.id.desc()).limit(1)
    found = connection.execute(query).all()
    begins = wanted.lower()
    if not found and MIN_PREFIX <= len(begins) <= ID_LENGTH and begins.isalnum():
        between = batches.c.id.between(begins, begins.ljust(ID_LENGTH, "z"))
        found = connection.execute(select(batches).where(between).limit(2)).all()
    if not found:
        raise NotFound(f"batch {given!r}: the ledger has none of this id or name")
    if len(found) > 1:
        raise NotFound(f"batch {given!r}: more than one id begins so: give more of it")
    return _batch(found[0])


def _batch(row: Row[*tuple[Any, ...]]) -> Batch:
    values = dict(row._mapping)
    values["recipe"] = json.loads(values["recipe"])
    values["pilot"] = tuple(json.loads(values["pilot"] or "[]"))
    return Batch(**values)
