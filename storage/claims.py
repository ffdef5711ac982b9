"""Taking a job, and every write that its owner may make.

Each write names the claim's attempt; when no row has it any more, another worker owns the job
and the write is refused with ClaimLost.
"""

import json
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, case, false, func, select, update
from sqlalchemy import insert as plain_insert

from storage.clock import Now
from storage.database import insert
from storage.errors import ClaimLost, InvalidSpec, WorkerLost
from storage.jobs import Claim, State, StepRecord
from storage.spec import parse_spec
from storage.tables import IS_QUEUED, IS_RUNNING, attempts, jobs, steps
from storage.views import step_records

#: Longer messages are cut: the ledger is no log.
MAX_ERROR_LENGTH = 4000
#: Expired leases taken back in one transaction.
REAP_LIMIT = 500


def runnable(pool: str) -> ColumnElement[bool]:
    """Queued, for this pool, and its time has come."""
    return and_(IS_QUEUED, jobs.c.pool == pool, jobs.c.run_at <= Now())


def claim(connection: Connection, worker: str, pool: str, lease_seconds: float) -> Claim | None:
    """The best job that may run now; one whose spec this version cannot read fails on the way."""
    while (row := _take_best(connection, worker, pool, lease_seconds)) is not None:
        connection.execute(
            plain_insert(attempts).values(
                job_id=row.id, number=row.attempt, worker=worker, started_at=Now()
            )
        )
        try:
            spec = parse_spec(row.spec)
        except InvalidSpec as error:
            _take_back(connection, row.id, row.attempt, false(), error.code, str(error))
            continue
        return Claim(
            job_id=row.id,
            attempt=row.attempt,
            worker=worker,
            spec=spec,
            steps=step_records(connection, [row.id]).get(row.id, ()),
        )
    return None


def renew(connection: Connection, claim: Claim, lease_seconds: float) -> None:
    _write(connection, claim, lease_until=Now() + lease_seconds)


def progress(connection: Connection, claim: Claim, step: int, done: int, total: int) -> None:
    _write(connection, claim, step=step, progress_done=done, progress_total=total)


def finish_step(connection: Connection, claim: Claim, record: StepRecord) -> None:
    _write(connection, claim, step=record.index + 1, progress_done=0, progress_total=0)
    finished = connection.scalar(
        select(func.count()).select_from(steps).where(steps.c.job_id == claim.job_id)
    )
    if record.index > (finished or 0):
        raise ValueError(f"step {record.index} of {claim.job_id} cannot finish before {finished}")
    values = {
        "job_id": claim.job_id,
        "number": record.index,
        "artifact": record.artifact,
        "carry": record.carry,
        "carry_kind": record.carry_kind,
        "details": json.dumps(record.details, ensure_ascii=False, allow_nan=False),
        "finished_at": Now(),
    }
    connection.execute(insert(connection, steps).values(values).on_conflict_do_nothing())


def succeed(connection: Connection, claim: Claim) -> None:
    _write(connection, claim, state=State.SUCCEEDED, lease_until=None, finished_at=Now())
    _end_attempt(connection, claim.job_id, claim.attempt)


def fail(
    connection: Connection, claim: Claim, code: str, message: str, retry_in: float | None
) -> State:
    message = _storable(message)[:MAX_ERROR_LENGTH]
    left = jobs.c.charged < jobs.c.max_attempts if retry_in is not None else false()
    state = _write(
        connection,
        claim,
        **_ended(left, code, message),
        run_at=case((left, Now() + (retry_in or 0.0)), else_=jobs.c.run_at),
    )
    _end_attempt(connection, claim.job_id, claim.attempt, code, message)
    return state


def give_back(connection: Connection, claim: Claim) -> None:
    _write(
        connection,
        claim,
        state=State.QUEUED,
        charged=jobs.c.charged - 1,
        worker=None,
        lease_until=None,
    )
    reason = "the worker stopped in order; not charged"
    _end_attempt(connection, claim.job_id, claim.attempt, "given_back", reason)


def reap(connection: Connection) -> list[str]:
    expired = list(
        connection.execute(
            select(jobs.c.id, jobs.c.attempt, jobs.c.worker)
            .where(IS_RUNNING, jobs.c.lease_until < Now())
            .order_by(jobs.c.lease_until)
            .limit(REAP_LIMIT)
            .with_for_update(skip_locked=True)
        )
    )
    for job_id, attempt, worker in expired:
        lost = f"worker {worker} stopped renewing its lease"
        left = jobs.c.charged < jobs.c.max_attempts
        _take_back(connection, job_id, attempt, left, WorkerLost.code, lost)
    return [row.id for row in expired]


def _take_best(
    connection: Connection, worker: str, pool: str, lease_seconds: float
) -> Row[str, int, str] | None:
    best = (
        select(jobs.c.id)
        .where(runnable(pool))
        .order_by(jobs.c.priority.desc(), jobs.c.run_at, jobs.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)  # Postgres only: SQLite has one writer at a time
    )
    return connection.execute(
        update(jobs)
        .where(jobs.c.id == best.scalar_subquery())
        .values(
            state=State.RUNNING,
            attempt=jobs.c.attempt + 1,
            charged=jobs.c.charged + 1,
            worker=worker,
            lease_until=Now() + lease_seconds,
            started_at=func.coalesce(jobs.c.started_at, Now()),
        )
        .returning(jobs.c.id, jobs.c.attempt, jobs.c.spec)
    ).one_or_none()


def _write(connection: Connection, claim: Claim, **values: Any) -> State:
    """Change the job that `claim` owns, or raise ClaimLost; returns the job's new state."""
    state = connection.scalar(
        update(jobs)
        .where(
            jobs.c.id == claim.job_id,
            jobs.c.attempt == claim.attempt,
            jobs.c.state == State.RUNNING,
        )
        .values(**values)
        .returning(jobs.c.state)
    )
    if state is None:
        raise ClaimLost(
            f"attempt {claim.attempt} of job {claim.job_id} by {claim.worker} is over:"
            " its lease ended, and the job was taken back"
        )
    return State(state)


def _ended(again: ColumnElement[bool], code: str, message: str) -> dict[str, Any]:
    """An attempt came to nothing: `again` says in SQL whether the job is queued once more."""
    return {
        "state": case((again, State.QUEUED), else_=State.FAILED),
        "worker": case((again, None), else_=jobs.c.worker),
        "lease_until": None,
        "error_code": case((again, None), else_=code),
        "error": case((again, None), else_=message),
        "finished_at": case((again, None), else_=Now()),
    }


def _take_back(
    connection: Connection,
    job_id: str,
    attempt: int,
    again: ColumnElement[bool],
    code: str,
    message: str,
) -> None:
    """End an attempt in its owner's stead; the caller's transaction holds the row."""
    connection.execute(
        update(jobs).where(jobs.c.id == job_id).values(**_ended(again, code, message))
    )
    _end_attempt(connection, job_id, attempt, code, message)


def _end_attempt(
    connection: Connection,
    job_id: str,
    attempt: int,
    code: str | None = None,
    message: str | None = None,
) -> None:
    connection.execute(
        update(attempts)
        .where(attempts.c.job_id == job_id, attempts.c.number == attempt)
        .values(ended_at=Now(), error_code=code, error=message)
    )


def _storable(text: str) -> str:
    """Without what Postgres refuses: NUL, and halves of surrogate pairs (odd file names)."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
