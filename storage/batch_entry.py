"""How rows enter a batch: each with its job, once for each content."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, select, update
from sqlalchemy import insert as plain_insert

from storage import orders
from storage.batch_tables import batch_rows
from storage.batch_views import HELD
from storage.clock import Now
from storage.database import Database, among, insert_many, storable
from storage.fairness import Turns
from storage.jobs import State
from storage.submission import NewJob, has_key, make_jobs
from storage.tables import jobs

DUPLICATE = "duplicate_key"
#: Characters; what is appended to tell names apart comes on top.
LONGEST_NAME = 1000


class NewRow(NamedTuple):
    """A row that has led to a job, to the key of one that is there, or to nothing."""

    number: int
    place: str
    entry: str | None = None
    variant: str = ""
    #: Another row of the same name is a mistake; else it only gets another name.
    is_key: bool = False
    file: str | None = None
    #: JSON.
    cells: str | None = None
    #: Of the job's content.
    key: str | None = None
    #: Its key is the content's. None: a job with the key is there.
    job: NewJob | None = None
    pool: str = ""
    #: Its job waits for the batch's release.
    held: bool = False
    #: Why it led to nothing.
    code: str | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Entered:
    """What came of some rows."""

    #: Rows by outcome: `job`, `skipped`, `failed`.
    outcomes: Counter[str]
    #: Jobs that may run now, by pool.
    pools: Counter[str]


class Intake:
    """Enters the rows of one batch, chunk by chunk, each chunk in one transaction."""

    def __init__(self, database: Database, batch_id: str) -> None:
        self._database, self._batch = database, batch_id
        self._turns = Turns(batch_id)

    def enter(self, rows: Sequence[NewRow]) -> Entered:
        """Enter rows with their jobs.

        A job of the same content that succeeded, or still will, stands for the row, which is
        skipped; one that failed, was canceled or is held runs again, for this batch.
        """
        with self._database.writing() as connection:
            rows = self._named(connection, rows)
            outcomes, job_ids, pools = self._jobs(connection, rows)
            rows = [
                _gone(r) if r.key and j is None else r for r, j in zip(rows, job_ids, strict=True)
            ]
            insert_many(
                connection,
                plain_insert(batch_rows),
                [
                    {
                        "batch_id": self._batch,
                        "number": row.number,
                        "place": storable(row.place),
                        "entry": row.entry,
                        "variant": row.variant,
                        "file": row.file and storable(row.file),
                        "cells": row.cells and storable(row.cells),
                        "job_id": job_id,
                        "outcome": outcome,
                        "code": row.code,
                        "reason": row.reason and storable(row.reason),
                    }
                    for row, outcome, job_id in zip(rows, outcomes, job_ids, strict=True)
                ],
            )
        return Entered(outcomes=Counter(outcomes), pools=pools)

    def _named(self, connection: Connection, rows: Sequence[NewRow]) -> list[NewRow]:
        """The rows, no two of the batch with the same name."""
        rows = [_with_name(row) for row in rows]
        names = [row.entry for row in rows if row.entry is not None]
        query = select(batch_rows.c.entry, batch_rows.c.variant)
        is_named = among(connection, batch_rows.c.entry, names)
        query = query.where(batch_rows.c.batch_id == self._batch, is_named)
        taken = {(entry, variant) for entry, variant in connection.execute(query)}
        found = []
        for row in rows:
            if row.entry is not None and (row.entry, row.variant) in taken:
                row = _renamed(row)
            taken.add((row.entry, row.variant))
            found.append(row)
        return found

    def _jobs(
        self, connection: Connection, rows: Sequence[NewRow]
    ) -> tuple[list[str], list[str | None], Counter[str]]:
        """The outcome and the job of each row, and the pools of jobs that may run now."""
        firsts: dict[str, NewRow] = {}
        for row in rows:
            # Of equal rows one that may run now stands for those that wait.
            if row.key is not None and (
                row.key not in firsts or (firsts[row.key].held and not row.held)
            ):
                firsts[row.key] = row
        fresh = [row for row in firsts.values() if row.job is not None]
        job_of, pools = self._make(connection, fresh)
        owners = _owners(connection, [key for key in firsts if key not in job_of])
        again = {
            key: owner
            for key, owner in owners.items()
            if owner.state in orders.RETRIABLE or (owner.held and not firsts[key].held)
        }
        for held in (False, True):
            some = [owner for key, owner in again.items() if firsts[key].held is held]
            self._run_again(connection, some, held)
            pools.update(owner.pool for owner in some if not held)
        outcomes: list[str] = []
        job_ids: list[str | None] = []
        for row in rows:
            owner = owners.get(row.key) if row.key is not None else None
            made = job_of.get(row.key) if row.key is not None else None
            is_first = row.key is not None and firsts[row.key] is row
            job_ids.append(made or (owner.id if owner else None))
            runs = is_first and (made is not None or row.key in again)
            outcomes.append("failed" if job_ids[-1] is None else "job" if runs else "skipped")
        return outcomes, job_ids, pools

    def _make(
        self, connection: Connection, rows: Sequence[NewRow]
    ) -> tuple[dict[str, str], Counter[str]]:
        """New jobs by their keys, and the pools of those that may run now."""
        if not rows:
            return {}, Counter()
        made, ids = make_jobs(
            connection,
            [
                row.job._replace(run_at=HELD) if row.held else row.job
                for row in rows
                if row.job is not None
            ],
            [row.pool for row in rows],
            self._batch,
            self._turns,
        )
        found = {job["key"]: job["id"] for job in made if job["id"] in ids}
        return found, Counter(row.pool for row in rows if not row.held and row.key in found)

    def _run_again(self, connection: Connection, owners: Sequence["_Owner"], held: bool) -> None:
        """Jobs of earlier batches run for this one."""
        if not owners:
            return
        chosen = jobs.c.id.in_([owner.id for owner in owners])
        time = HELD if held else Now()
        connection.execute(update(jobs).where(chosen).values(batch=self._batch, run_at=time))
        ended = orders.page(connection, [chosen], orders.RETRIABLE, "", len(owners))
        orders.retry(connection, ended, {self._batch: self._turns})


def settled(connection: Connection, keys: Sequence[str]) -> set[str]:
    """Those of the keys whose jobs have succeeded, or will run by themselves."""
    found = _owners(connection, keys)
    return {key for key, owner in found.items() if owner.state not in orders.RETRIABLE}


@dataclass(frozen=True)
class _Owner:
    """The job that has a key."""

    id: str
    state: State
    pool: str
    held: bool


def _owners(connection: Connection, keys: Sequence[str]) -> dict[str, _Owner]:
    if not keys:
        return {}
    columns = (jobs.c.key, jobs.c.id, jobs.c.state, jobs.c.pool, jobs.c.run_at)
    query = select(*columns).where(has_key(connection, "", keys))
    return {
        key: _Owner(job_id, State(state), pool, state == State.QUEUED and run_at >= HELD)
        for key, job_id, state, pool, run_at in connection.execute(query)
    }


def _with_name(row: NewRow) -> NewRow:
    """The row with a name that can be stored, or none."""
    if row.entry is None or (row.entry.isascii() and len(row.entry) <= LONGEST_NAME):
        return row
    name = storable(row.entry)
    if len(name) <= LONGEST_NAME:
        return row._replace(entry=name)
    reason = f"its name has {len(name)} characters, more than {LONGEST_NAME}"
    return row._replace(entry=None, key=None, job=None, code="invalid_spec", reason=reason)


def _gone(row: NewRow) -> NewRow:
    return row._replace(code="job_gone", reason="its job has just been removed: submit again")


def _renamed(row: NewRow) -> NewRow:
    if not row.is_key:
        return row._replace(entry=f"{row.entry}.row-{row.number}")
    return row._replace(
        entry=None,
        key=None,
        job=None,
        code=row.code or DUPLICATE,
        reason=row.reason or f"{row.entry!r} is the name of an earlier row",
    )
