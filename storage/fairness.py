"""Whose turn it is: start-time fair queuing over batches.

Among jobs of equal priority the lowest turn goes first. The virtual time of a pool and a priority
is the highest turn that was claimed so far. The jobs of a batch take the turns after it, one each,
so that of two batches each gets half of the claims, however late the second one came. A job that
was submitted alone takes a turn that is over: it goes next. A job whose time has not come has no
turn yet.

Source: Goyal, Vin and Cheng, "Start-time Fair Queueing", SIGCOMM 1996, with jobs of equal cost.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, select, update

from storage.clock import Now
from storage.tables import HAS_HAD_ITS_TURN, IS_DELAYED, IS_IN_BATCH, IS_READY, jobs

#: Seconds that a job may be passed over for others whose model is loaded.
LONGEST_WAIT = 300.0
#: Turns by which jobs whose model is loaded may run ahead when all have waited as long as that.
HEAD_START = 50
#: Jobs that get their turn in one transaction.
MOST_AT_ONCE = 1000

#: Pool and priority: jobs of one queue go by turns.
Queue = tuple[str, int]


class Turns:
    """The turns of the jobs that one submission enters, chunk by chunk."""

    def __init__(self, batch: str | None) -> None:
        self._batch = batch
        #: The last turn given in each queue. None: nothing has been given yet.
        self._given: dict[Queue, int] | None = None

    def give(self, connection: Connection, queues: Sequence[Queue]) -> list[int]:
        """Turns for jobs in these queues, in the order of the jobs."""
        if self._batch is None and self._given is None and len(queues) == 1:
            self._given = {}
            return [next_turn(connection, queues[0])]
        given = self._given = self._given or {}
        for queue in set(queues):
            # Turns that passed since the chunk before are not caught up.
            given[queue] = max(given.get(queue, 0), self._before_first(connection, queue))
        turns = []
        for queue in queues:
            given[queue] += 1
            turns.append(given[queue])
        return turns

    def _before_first(self, connection: Connection, queue: Queue) -> int:
        last = _last_turn(connection, self._batch, queue) if self._batch is not None else 0
        return max(virtual_time(connection, queue), last)


class LoneTurns:
    """The turns of jobs that enter together, but each for itself: all of them go next."""

    def give(self, connection: Connection, queues: Sequence[Queue]) -> list[int]:
        turns = {queue: next_turn(connection, queue) for queue in set(queues)}
        return [turns[queue] for queue in queues]


def virtual_time(connection: Connection, queue: Queue) -> int:
    """The highest turn of the queue that was claimed so far."""
    pool, priority = queue
    query = select(jobs.c.turn).where(
        HAS_HAD_ITS_TURN, jobs.c.pool == pool, jobs.c.priority == priority
    )
    return connection.scalar(query.order_by(jobs.c.turn.desc()).limit(1)) or 0


def next_turn(connection: Connection, queue: Queue) -> int:
    """A turn that is over, or ties with the lowest: whoever has it goes next."""
    pool, priority = queue
    lowest = connection.scalar(
        select(jobs.c.turn)
        .where(IS_READY, jobs.c.pool == pool, jobs.c.priority == priority)
        .order_by(jobs.c.turn)
        .limit(1)
    )
    now = virtual_time(connection, queue)
    return now if lowest is None else min(now, lowest)


def give_turns(connection: Connection, pool: str) -> None:
    """Give a turn to the jobs of a pool that have none and whose time has come."""
    due = connection.execute(
        select(jobs.c.id, jobs.c.priority, jobs.c.batch, jobs.c.attempt)
        .where(IS_DELAYED, jobs.c.pool == pool, jobs.c.run_at <= Now())
        .order_by(jobs.c.run_at, jobs.c.id)
        .limit(MOST_AT_ONCE)
        .with_for_update(skip_locked=True)
    ).all()
    found: list[dict[str, object]] = []
    next_turns: dict[int, int] = {}
    flow_of: dict[tuple[str, int], list[str]] = {}
    for row in due:
        if row.batch is not None and row.attempt == 0:
            flow_of.setdefault((row.batch, row.priority), []).append(row.id)
            continue
        # A job that comes back has had its turn: it goes on as soon as it can.
        if row.priority not in next_turns:
            next_turns[row.priority] = next_turn(connection, (pool, row.priority))
        found.append({"job_id": row.id, "its_turn": next_turns[row.priority]})
    for batch, priority in sorted(flow_of):
        ids = flow_of[batch, priority]
        turns = Turns(batch).give(connection, [(pool, priority)] * len(ids))
        found += [{"job_id": i, "its_turn": t} for i, t in zip(ids, turns, strict=True)]
    if found:
        statement = update(jobs).where(jobs.c.id == bindparam("job_id"))
        connection.execute(statement.values(turn=bindparam("its_turn")), found)


def _last_turn(connection: Connection, batch: str, queue: Queue) -> int:
    """The highest turn of the batch's jobs that wait in the queue, or 0."""
    pool, priority = queue
    query = select(jobs.c.turn).where(
        IS_READY,
        IS_IN_BATCH,
        jobs.c.batch == batch,
        jobs.c.pool == pool,
        jobs.c.priority == priority,
    )
    return connection.scalar(query.order_by(jobs.c.turn.desc()).limit(1)) or 0
