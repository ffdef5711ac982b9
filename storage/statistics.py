"""Figures about all jobs, for those who keep watch over a mill."""

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from storage.api_tables import IS_OPEN, deliveries, events
from storage.clock import Now
from storage.jobs import State
from storage.tables import HAS_ERROR, IS_READY, jobs
from storage.views import counts

#: Seconds over which waits are measured.
LATELY = 300.0


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """As it stood when it was read; times in seconds."""

    jobs: dict[State, int]
    #: Failed and canceled jobs by error code.
    ended: dict[tuple[str, str], int]
    #: Per pool, how long the job has been due that has been due for longest.
    oldest: dict[str, float]
    #: Jobs first claimed of late, and how long they had been due then, together and at most.
    claimed: int
    waited: float
    waited_most: float
    webhooks_open: int


def read_statistics(connection: Connection) -> Statistics:
    what = jobs.c.error_code, jobs.c.state
    ended = select(*what, func.count()).where(HAS_ERROR).group_by(*what)
    age = func.max(Now() - jobs.c.run_at)
    oldest = select(jobs.c.pool, age).where(IS_READY).group_by(jobs.c.pool)
    wait = events.c.at - jobs.c.run_at
    claimed = (
        select(func.count(), func.coalesce(func.sum(wait), 0.0), func.coalesce(func.max(wait), 0.0))
        .select_from(events.join(jobs, jobs.c.id == events.c.job_id))
        .where(
            events.c.at > Now() - LATELY,
            events.c.kind == State.RUNNING,
            events.c.attempt == 1,
        )
    )
    count, waited, most = connection.execute(claimed).one()
    webhooks = select(func.count()).select_from(deliveries).where(IS_OPEN)
    return Statistics(
        jobs=counts(connection, None, None, None),
        ended={(state, code): n for code, state, n in connection.execute(ended)},
        oldest={pool: max(0.0, age) for pool, age in connection.execute(oldest)},
        claimed=count,
        waited=waited,
        waited_most=most,
        webhooks_open=connection.scalar(webhooks) or 0,
    )
