"""What any worker does for all jobs: expired leases, and what ended jobs left in the bucket."""

from collections.abc import Sequence

from sqlalchemy import Connection, select, update

from storage.claims import end_in_owners_stead
from storage.clock import Now
from storage.errors import WorkerLost
from storage.tables import IS_LITTERED, IS_RUNNING, jobs

#: Expired leases taken back in one transaction.
REAP_LIMIT = 500


def reap(connection: Connection) -> list[str]:
    """Take back jobs whose lease has run out."""
    expired = connection.execute(
        select(jobs.c.id, jobs.c.attempt, jobs.c.worker)
        .where(IS_RUNNING, jobs.c.lease_until < Now())
        .order_by(jobs.c.lease_until)
        .limit(REAP_LIMIT)
        .with_for_update(skip_locked=True)
    ).all()
    for job_id, attempt, worker in expired:
        lost = f"worker {worker} stopped renewing its lease"
        left = jobs.c.charged < jobs.c.max_attempts
        end_in_owners_stead(connection, job_id, attempt, left, WorkerLost.code, lost)
    return [row.id for row in expired]


def littered(connection: Connection, limit: int) -> list[str]:
    """Ended jobs that may have left carries in the bucket."""
    return list(connection.scalars(select(jobs.c.id).where(IS_LITTERED).limit(limit)))


def tidied(connection: Connection, job_ids: Sequence[str]) -> None:
    """Nothing of these jobs is left in the bucket, as far as they have ended."""
    statement = update(jobs).where(IS_LITTERED, jobs.c.id.in_(job_ids))
    connection.execute(statement.values(carries=False))
