"""Taking a job, and every write that its owner may make.

Each write names the claim's attempt; when no row has it any more, another worker owns the job
and the write is refused with ClaimLost.
"""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    case,
    delete,
    false,
    func,
    not_,
    null,
    select,
    true,
    update,
)
from sqlalchemy import insert as plain_insert

from storage.changes import note, note_end
from storage.choice import make_ready, preferred, ready
from storage.clock import Now
from storage.database import insert, storable
from storage.errors import Canceled, ClaimLost, DeadlineExceeded, InvalidSpec, LatentmillError
from storage.jobs import Claim, State, StepRecord
from storage.spec import parse_spec
from storage.tables import attempts, jobs, steps
from storage.views import step_records

#: Longer messages are cut: the ledger is no log.
MAX_ERROR_LENGTH = 4000


def claim(
    connection: Connection, worker: str, pool: str, lease_seconds: float, prefer: Sequence[str]
) -> Claim | None:
    """The best job that may run now; one whose spec this version cannot read fails on the way."""
    make_ready(connection, pool)
    while (row := _take_best(connection, worker, pool, lease_seconds, prefer)) is not None:
        connection.execute(
            plain_insert(attempts).values(
                job_id=row.id, number=row.attempt, worker=worker, started_at=Now()
            )
        )
        note(connection, [row.id])
        try:
            spec = parse_spec(row.spec)
        except InvalidSpec as error:
            end_in_owners_stead(connection, row.id, row.attempt, false(), error.code, str(error))
            continue
        # No earlier attempt, no finished steps.
        finished = step_records(connection, [row.id]) if row.attempt > 1 else {}
        return Claim(
            job_id=row.id,
            attempt=row.attempt,
            worker=worker,
            spec=spec,
            steps=finished.get(row.id, ()),
        )
    return None


def renew(connection: Connection, claim: Claim, lease_seconds: float) -> LatentmillError | None:
    return _wish(_write(connection, claim, lease_until=Now() + lease_seconds))


def progress(
    connection: Connection, claim: Claim, step: int, done: int, total: int
) -> LatentmillError | None:
    try:
        row = _write(connection, claim, step=step, progress_done=done, progress_total=total)
    except ClaimLost as lost:
        return lost
    return _wish(row)


def finish_step(connection: Connection, claim: Claim, record: StepRecord) -> LatentmillError | None:
    following = claim.spec.steps[record.index + 1 : record.index + 2]
    row = _write(
        connection,
        claim,
        step=record.index + 1,
        progress_done=0,
        progress_total=0,
        next_model=following[0].model if following else jobs.c.next_model,
        carries=true() if record.carry else jobs.c.carries,
    )
    finished = _finished_steps(connection, claim)
    if record.index > finished:
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
    new = connection.execute(insert(connection, steps).values(values).on_conflict_do_nothing())
    if new.rowcount:
        note(connection, [claim.job_id], "step")
    return _wish(row)


def forget_steps(connection: Connection, claim: Claim) -> None:
    _write(
        connection,
        claim,
        step=0,
        progress_done=0,
        progress_total=0,
        next_model=claim.spec.steps[0].model,
    )
    connection.execute(delete(steps).where(steps.c.job_id == claim.job_id))


def succeed(connection: Connection, claim: Claim) -> None:
    _write(connection, claim, state=State.SUCCEEDED, lease_until=None, finished_at=Now())
    finished, wanted = _finished_steps(connection, claim), len(claim.spec.steps)
    if finished != wanted:
        raise ValueError(f"{claim.job_id} cannot succeed with {finished} of {wanted} steps")
    _end_attempt(connection, claim.job_id, claim.attempt)


def fail(
    connection: Connection, claim: Claim, code: str, message: str, retry_in: float | None
) -> State:
    message = storable(message)[:MAX_ERROR_LENGTH]
    left = jobs.c.charged < jobs.c.max_attempts if retry_in is not None else false()
    row = _write(
        connection,
        claim,
        **_ended(left, code, message),
        run_at=case((left, Now() + (retry_in or 0.0)), else_=jobs.c.run_at),
    )
    _end_attempt(connection, claim.job_id, claim.attempt, code, message)
    return State(row.state)


def cancel(connection: Connection, claim: Claim) -> None:
    reason = "canceled while it ran"
    ended = {**_ended(false(), Canceled.code, reason), "state": State.CANCELED}
    _write(connection, claim, **ended)
    _end_attempt(connection, claim.job_id, claim.attempt, Canceled.code, reason)


def give_back(connection: Connection, claim: Claim) -> State:
    row = _write(
        connection,
        claim,
        **_ended(true(), "", ""),
        charged=jobs.c.charged - 1,
        carries=True,  # the row that was left in the middle of its step
    )
    reason = "the worker stopped in order; not charged"
    _end_attempt(connection, claim.job_id, claim.attempt, "given_back", reason)
    return State(row.state)


def end_in_owners_stead(
    connection: Connection,
    job_id: str,
    attempt: int,
    again: ColumnElement[bool],
    code: str,
    message: str,
) -> None:
    """End an attempt whose owner is gone; the caller's transaction holds the row."""
    ended = {**_ended(again, code, message), "carries": True}
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(**ended))
    _end_attempt(connection, job_id, attempt, code, message)


def _take_best(
    connection: Connection, worker: str, pool: str, lease_seconds: float, prefer: Sequence[str]
) -> Row[str, int, str] | None:
    def take(where: ColumnElement[bool]) -> Row[str, int, str] | None:
        best = (
            select(jobs.c.id)
            .where(where)
            .order_by(jobs.c.priority.desc(), jobs.c.turn, jobs.c.id)
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

    wanted = preferred(connection, pool, prefer) if prefer else None
    # Others may have taken the preferred ones since.
    return (take(wanted) if wanted is not None else None) or take(ready(pool))


def _write(connection: Connection, claim: Claim, **values: Any) -> Row[str, bool, bool]:
    """Change the job that `claim` owns, or raise ClaimLost.

    Returns the job's new state, whether it shall be canceled, and whether its deadline has passed.
    """
    row = connection.execute(
        update(jobs)
        .where(
            jobs.c.id == claim.job_id,
            jobs.c.attempt == claim.attempt,
            jobs.c.state == State.RUNNING,
        )
        .values(**values)
        .returning(
            jobs.c.state,
            jobs.c.cancel_requested,
            func.coalesce(jobs.c.deadline <= Now(), false()).label("late"),
        )
    ).one_or_none()
    if row is None:
        raise ClaimLost(
            f"attempt {claim.attempt} of job {claim.job_id} by {claim.worker} is over:"
            " its lease ended, and the job was taken back"
        )
    return row


def _wish(row: Row[str, bool, bool]) -> LatentmillError | None:
    """Why the owner of a running job should let it go, if it should."""
    if row.cancel_requested:
        return Canceled("canceled while it ran")
    return DeadlineExceeded("its deadline passed while it ran") if row.late else None


def _finished_steps(connection: Connection, claim: Claim) -> int:
    query = select(func.count()).select_from(steps).where(steps.c.job_id == claim.job_id)
    return connection.scalar(query) or 0


def _ended(again: ColumnElement[bool], code: str, message: str) -> dict[str, Any]:
    """An attempt came to nothing: `again` says in SQL whether the job is queued once more.

    A job that shall be canceled is not.
    """
    queued = and_(again, not_(jobs.c.cancel_requested))
    canceled = and_(again, jobs.c.cancel_requested)
    why = "canceled before its next attempt"
    return {
        "state": case((queued, State.QUEUED), (canceled, State.CANCELED), else_=State.FAILED),
        "worker": case((queued, null()), else_=jobs.c.worker),
        # The next claim gives it one, when its time has come.
        "turn": case((queued, null()), else_=jobs.c.turn),
        "lease_until": None,
        "error_code": case((queued, null()), (canceled, Canceled.code), else_=code),
        "error": case((queued, null()), (canceled, why), else_=message),
        "finished_at": case((queued, null()), else_=Now()),
    }


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
    note_end(connection, [job_id])
