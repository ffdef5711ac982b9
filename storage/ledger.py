"""The ledger: the only truth about jobs. Everything else may be lost and costs but time."""

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice
from typing import TypeVar

from sqlalchemy import Connection, delete

from storage import choice, claims, orders, schema, submission, upkeep, views
from storage.clock import Now
from storage.database import Database, insert
from storage.errors import KeyConflict, LatentmillError
from storage.fairness import Turns
from storage.jobs import (
    Asked,
    Attempt,
    Cancellation,
    Claim,
    Job,
    Selection,
    State,
    StepRecord,
    Submitted,
    Worker,
)
from storage.spec import Spec
from storage.tables import workers

__all__ = [
    "Attempt",
    "Cancellation",
    "Claim",
    "Job",
    "Ledger",
    "Selection",
    "State",
    "StepRecord",
    "Submitted",
    "Worker",
]

T = TypeVar("T")

#: Jobs that enter, or change by one order, in one transaction.
CHUNK = 1000
#: A worker that has not reported for so long, in seconds, counts as gone.
SILENT_AFTER = 30.0


class Ledger:
    """Jobs, their steps and attempts, and the workers that are there.

    Safe to use from several threads and processes. Every method is one short transaction (submit,
    cancel and retry: one for each thousand jobs) and raises LedgerUnavailable when the database
    cannot be used, NotConfigured when its tables are not there.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def database(self) -> Database:
        """For what stands in tables beside the jobs."""
        return self._database

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

    def submit(
        self,
        specs: Iterable[Spec],
        pool: str | Callable[[Spec], str] = "default",
        batch: str | None = None,
        owner: str = "",
    ) -> list[Submitted]:
        """Enter jobs in the order of their specs, reading the specs as it goes.

        `pool` may say for each spec where it runs. Jobs of one batch, or of one submission, share
        what the queue has to give with other batches; a job that is submitted alone goes next.
        A key that a job of the owner's already has gives that job when the specs are equal, else
        KeyConflict: then nothing of the same thousand enters. Seeds left open are drawn here.
        """
        found: list[Submitted] = []
        rest, turns = iter(specs), Turns(batch)
        while chunk := list(islice(rest, CHUNK)):
            pools = [pool if isinstance(pool, str) else pool(spec) for spec in chunk]
            with self._database.writing() as connection:
                found += submission.submit(connection, chunk, pools, batch, turns, owner)
        return found

    def submit_each(self, many: Sequence[Asked]) -> list[Submitted | KeyConflict]:
        """Enter jobs that each stand alone, in one transaction; those with a conflict do not."""
        with self._database.writing() as connection:
            return submission.submit_each(connection, many)

    def refuse(self, spec: Spec, *, code: str, message: str, pool: str = "default") -> Submitted:
        """Enter a job that has failed already, so that whoever asked can see why; see `submit`."""
        with self._database.writing() as connection:
            return submission.refuse(connection, spec, pool, code, message)

    def cancel(self, chosen: Selection) -> list[Cancellation]:
        """Cancel queued jobs at once, and running ones at their next step boundary.

        Says what came of each id that was given; of a label or a batch, of each job that had not
        ended. Repeating it changes nothing. Raises NotFound, and then cancels nothing.
        """
        states = tuple(State) if chosen.ids else orders.OPEN
        return self._change(chosen, states, orders.cancel)

    def retry(self, chosen: Selection) -> list[str]:
        """Queue failed and canceled jobs again, each with all its attempts to spend once more.

        Their history stays, and finished steps count where their carries are still there. Returns
        their ids; jobs in other states stay as they are. Raises NotFound.
        """
        turns: dict[str | None, Turns] = {}
        return self._change(
            chosen, orders.RETRIABLE, lambda connection, rows: orders.retry(connection, rows, turns)
        )

    def _change(
        self,
        chosen: Selection,
        states: Sequence[State],
        change: Callable[[Connection, orders.Rows], list[T]],
    ) -> list[T]:
        """Change the chosen jobs, a thousand in each transaction."""
        with self._database.reading() as connection:
            where = orders.conditions(connection, chosen)
        found: list[T] = []
        after = ""
        while True:
            with self._database.writing() as connection:
                rows = orders.page(connection, where, states, after, CHUNK)
                found += change(connection, rows)
            if len(rows) < CHUNK:
                return found
            after = rows[-1].id

    def job(self, job_id: str, owner: str | None = None) -> Job:
        """A job by its id or the beginning of it (6 characters or more); raises NotFound.

        An owner's only, if one is given.
        """
        with self._database.reading() as connection:
            return views.job(connection, job_id, owner)

    def jobs(
        self,
        *,
        state: State | None = None,
        label: tuple[str, str] | None = None,
        batch: str | None = None,
        limit: int = 50,
        before: str | None = None,
        owner: str | None = None,
    ) -> list[Job]:
        """Jobs, newest first; the last one's id as `before` gives the next page."""
        with self._database.reading() as connection:
            return views.job_page(connection, state, label, batch, limit, before, owner)

    def jobs_by_id(self, ids: Collection[str]) -> dict[str, Job]:
        """Those of these jobs that are there."""
        with self._database.reading() as connection:
            return views.jobs_by_id(connection, ids)

    def counts(
        self, pool: str | None = None, batch: str | None = None, owner: str | None = None
    ) -> dict[State, int]:
        """How many jobs are in each state, of a pool, a batch, an owner."""
        with self._database.reading() as connection:
            return views.counts(connection, pool, batch, owner)

    def waiting_of(self, owner: str, most: int) -> int:
        """How many of an owner's jobs wait, counted no further than `most`."""
        with self._database.reading() as connection:
            return views.waiting_of(connection, owner, most)

    def due(self, pool: str) -> int:
        """How many jobs could run now, counted no further than a thousand."""
        with self._database.reading() as connection:
            return choice.count_due(connection, pool)

    def highest_priority(self, pool: str) -> int | None:
        """That of the jobs that could run now; None where none could."""
        with self._database.reading() as connection:
            return choice.highest_priority(connection, pool)

    # Owning: each raises ClaimLost once the job has another owner

    def claim(
        self, *, worker: str, pool: str, lease_seconds: float, prefer: Sequence[str] = ()
    ) -> Claim | None:
        """Take the best job that may run now: by priority, then by turn, then by age.

        Among equal priority, jobs whose next step needs one of the models in `prefer` go first,
        unless another has waited for too long (storage.fairness.LONGEST_WAIT).
        """
        with self._database.writing() as connection:
            return claims.claim(connection, worker, pool, lease_seconds, prefer)

    # renew, progress and finish_step return why the owner should let the job go, if it should:
    # Canceled, DeadlineExceeded.

    def renew(self, claim: Claim, lease_seconds: float) -> LatentmillError | None:
        """Own the job for so many seconds from now."""
        with self._database.writing() as connection:
            return claims.renew(connection, claim, lease_seconds)

    def progress(
        self, reports: Sequence[tuple[Claim, int, int, int]]
    ) -> list[LatentmillError | None]:
        """Say how far the running steps have come: (claim, step, done, total) of each.

        Answers a reason to stop for each, ClaimLost among them, or None.
        """
        with self._database.writing() as connection:
            return [claims.progress(connection, *report) for report in reports]

    def finish_step(self, claim: Claim, record: StepRecord) -> LatentmillError | None:
        """Record a finished step, once: repeating it changes nothing. Steps finish in order."""
        with self._database.writing() as connection:
            return claims.finish_step(connection, claim, record)

    def forget_steps(self, claim: Claim) -> None:
        """Begin with the first step again: what the finished ones handed over is gone."""
        with self._database.writing() as connection:
            claims.forget_steps(connection, claim)

    def succeed(self, claim: Claim) -> None:
        """End the job; raises ValueError unless each of its steps is recorded."""
        with self._database.writing() as connection:
            claims.succeed(connection, claim)

    def fail(self, claim: Claim, *, code: str, message: str, retry_in: float | None) -> State:
        """End the attempt: queued again in `retry_in` seconds if attempts are left, else failed."""
        with self._database.writing() as connection:
            return claims.fail(connection, claim, code, message, retry_in)

    def end_canceled(self, claim: Claim) -> None:
        """End a running job that somebody no longer wants."""
        with self._database.writing() as connection:
            claims.cancel(connection, claim)

    def give_back(self, claim: Claim) -> State:
        """Queue the job again without charging the attempt: for orderly stops."""
        with self._database.writing() as connection:
            return claims.give_back(connection, claim)

    # Keeping house

    def reap(self) -> list[str]:
        """Take jobs whose lease has run out: queued again, or failed when attempts are spent."""
        with self._database.writing() as connection:
            return upkeep.reap(connection)

    def expire(self) -> int:
        """Fail the queued jobs whose deadline has passed; says how many."""
        with self._database.writing() as connection:
            return choice.expire(connection)

    def littered(self, limit: int = 100) -> list[str]:
        """Ended jobs that may have left carries in the bucket."""
        with self._database.reading() as connection:
            return upkeep.littered(connection, limit)

    def tidied(self, job_ids: Sequence[str]) -> None:
        """Nothing of these jobs is left under `carry/`."""
        with self._database.writing() as connection:
            upkeep.tidied(connection, job_ids)

    # Workers

    def demand(self, pool: str) -> dict[str, int]:
        """How many ready jobs wait for each model, by its alias; large numbers are cut off."""
        with self._database.reading() as connection:
            return views.demand(connection, pool)

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
            "figures": json.dumps(worker.figures),
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
