"""The ledger: the only truth about jobs. Everything else may be lost and costs but time."""

import json
from collections.abc import Iterable
from itertools import islice

from sqlalchemy import delete, func, select

from storage import claims, schema, submission, views
from storage.clock import Now
from storage.database import Database, insert
from storage.jobs import Attempt, Claim, Job, State, StepRecord, Submitted, Worker
from storage.spec import Spec
from storage.tables import jobs, workers

__all__ = ["Attempt", "Claim", "Job", "Ledger", "State", "StepRecord", "Submitted", "Worker"]

#: Specs that enter in one transaction.
CHUNK = 1000
#: A worker that has not reported for so long, in seconds, counts as gone.
SILENT_AFTER = 30.0
#: `due` counts no further: nobody needs to know by how much there is enough work.
DUE_CAP = 1000


class Ledger:
    """Jobs, their steps and attempts, and the workers that are there.

    Safe to use from several threads and processes. Every method is one short transaction (submit:
    one for each thousand specs) and raises LedgerUnavailable when the database cannot be used,
    NotConfigured when its tables are not there.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, url: str) -> "Ledger":
        """A ledger at `sqlite:///path` or `postgresql://…`; connects when first used."""
        return cls(Database(url))

    def close(self) -> None:
        """Give the connections back."""
        self._database.close()

    # The tables

    def upgrade(self) -> None:
        """Create the tables or bring them to this version; several processes may do so at once."""
        with self._database.writing() as connection:
            schema.upgrade(connection)

    def schema(self) -> tuple[str | None, str]:
        """The revision that the database has (None: no tables), and the one this code needs."""
        with self._database.reading() as connection:
            return schema.revisions(connection)

    # Asking

    def submit(self, specs: Iterable[Spec], pool: str = "default") -> list[Submitted]:
        """Enter jobs in the order of their specs, reading the specs as it goes.

        A key that a job already has gives that job when the specs are equal, else KeyConflict:
        then nothing of the same thousand enters. Seeds left open are drawn here.
        """
        found: list[Submitted] = []
        rest = iter(specs)
        while chunk := list(islice(rest, CHUNK)):
            with self._database.writing() as connection:
                found += submission.submit(connection, chunk, pool)
        return found

    def job(self, job_id: str) -> Job:
        """A job by its id or the beginning of it (6 characters or more); raises NotFound."""
        with self._database.reading() as connection:
            return views.job(connection, job_id)

    def jobs(
        self,
        *,
        state: State | None = None,
        label: tuple[str, str] | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> list[Job]:
        """Jobs, newest first; the last one's id as `before` gives the next page."""
        with self._database.reading() as connection:
            return views.job_page(connection, state, label, limit, before)

    def counts(self, pool: str | None = None) -> dict[State, int]:
        """How many jobs are in each state."""
        with self._database.reading() as connection:
            return views.counts(connection, pool)

    def due(self, pool: str) -> int:
        """How many jobs could run now, counted no further than a thousand."""
        some = select(jobs.c.id).where(claims.runnable(pool)).limit(DUE_CAP).subquery()
        with self._database.reading() as connection:
            return connection.scalar(select(func.count()).select_from(some)) or 0

    # Owning: each raises ClaimLost once the job has another owner

    def claim(self, *, worker: str, pool: str, lease_seconds: float) -> Claim | None:
        """Take the best job that may run now: by priority, then by how long it has been due."""
        with self._database.writing() as connection:
            return claims.claim(connection, worker, pool, lease_seconds)

    def renew(self, claim: Claim, lease_seconds: float) -> None:
        """Own the job for so many seconds from now."""
        with self._database.writing() as connection:
            claims.renew(connection, claim, lease_seconds)

    def progress(self, claim: Claim, *, step: int, done: int, total: int) -> None:
        """Say how far the running step has come."""
        with self._database.writing() as connection:
            claims.progress(connection, claim, step, done, total)

    def finish_step(self, claim: Claim, record: StepRecord) -> None:
        """Record a finished step, once: repeating it changes nothing. Steps finish in order."""
        with self._database.writing() as connection:
            claims.finish_step(connection, claim, record)

    def succeed(self, claim: Claim) -> None:
        with self._database.writing() as connection:
            claims.succeed(connection, claim)

    def fail(self, claim: Claim, *, code: str, message: str, retry_in: float | None) -> State:
        """End the attempt: queued again in `retry_in` seconds if attempts are left, else failed."""
        with self._database.writing() as connection:
            return claims.fail(connection, claim, code, message, retry_in)

    def give_back(self, claim: Claim) -> None:
        """Queue the job again without charging the attempt: for orderly stops."""
        with self._database.writing() as connection:
            claims.give_back(connection, claim)

    def reap(self) -> list[str]:
        """Take jobs whose lease has run out: queued again, or failed when attempts are spent."""
        with self._database.writing() as connection:
            return claims.reap(connection)

    # Workers

    def report_worker(self, worker: Worker) -> None:
        """Say that a worker is there, and what it has loaded."""
        values = {
            "name": worker.name,
            "device": worker.device,
            "pool": worker.pool,
            "slots": worker.slots,
            "loaded": json.dumps(worker.loaded),
            "started_at": worker.started_at,
            "seen_at": Now(),
        }
        changed = {name: value for name, value in values.items() if name != "name"}
        with self._database.writing() as connection:
            connection.execute(
                insert(connection, workers)
                .values(values)
                .on_conflict_do_update(index_elements=[workers.c.name], set_=changed)
            )

    def workers(self, seen_within: float = SILENT_AFTER) -> list[Worker]:
        """Workers that reported within so many seconds, by name."""
        with self._database.reading() as connection:
            return views.live_workers(connection, seen_within)

    def forget_worker(self, name: str) -> None:
        with self._database.writing() as connection:
            connection.execute(delete(workers).where(workers.c.name == name))
