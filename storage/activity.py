"""What workers do now: the rows they run, and how many pictures they lately made."""

from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import func, select

from storage.api_tables import events
from storage.clock import Now
from storage.database import Database
from storage.tables import IS_RUNNING, jobs

#: Seconds over which the present speed is measured.
LATELY = 60.0


@dataclass(frozen=True, kw_only=True)
class Running:
    """A job in a worker's hands."""

    job_id: str
    owner: str
    #: Index of the step that runs.
    step: int
    done: int
    total: int


def running(database: Database) -> dict[str, list[Running]]:
    """The jobs that run now, by worker."""
    columns = jobs.c.id, jobs.c.owner, jobs.c.step, jobs.c.progress_done, jobs.c.progress_total
    query = select(jobs.c.worker, *columns).where(IS_RUNNING).order_by(jobs.c.id)
    found: dict[str, list[Running]] = defaultdict(list)
    with database.reading() as connection:
        for worker, job_id, owner, step, done, total in connection.execute(query):
            one = Running(job_id=job_id, owner=owner, step=step, done=done, total=total)
            found[worker].append(one)
    return found


def pictures_lately(database: Database) -> dict[str, int]:
    """How many steps of jobs each worker finished within `LATELY`."""
    query = (
        select(jobs.c.worker, func.count())
        .select_from(events.join(jobs, jobs.c.id == events.c.job_id))
        .where(events.c.at > Now() - LATELY, events.c.kind == "step", jobs.c.worker.is_not(None))
        .group_by(jobs.c.worker)
    )
    with database.reading() as connection:
        return {row[0]: row[1] for row in connection.execute(query)}
