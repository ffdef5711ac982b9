"""What people order afterwards: cancel jobs, try ended ones once more."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, bindparam, case, null, select, update

from storage.changes import note, note_end
from storage.clock import Now
from storage.errors import Canceled, InvalidSpec
from storage.fairness import Turns
from storage.jobs import Cancellation, Selection, State
from storage.tables import IS_IN_BATCH, jobs
from storage.views import full_id, has_label, owned_by

OPEN = (State.QUEUED, State.RUNNING)
RETRIABLE = (State.FAILED, State.CANCELED)

Rows = Sequence[Row[*tuple[Any, ...]]]


def conditions(connection: Connection, chosen: Selection) -> list[ColumnElement[bool]]:
    """Where in SQL the chosen jobs are; raises NotFound, and InvalidSpec when nothing is said."""
    found: list[ColumnElement[bool]] = []
    if chosen.ids:
        ids = [full_id(connection, job_id, chosen.owner) for job_id in chosen.ids]
        found.append(jobs.c.id.in_(ids))
    if chosen.label is not None:
        found.append(has_label(chosen.label))
    if chosen.batch is not None:
        found += [IS_IN_BATCH, jobs.c.batch == chosen.batch]  # type: ignore[list-item]
    if chosen.error_code is not None:
        found.append(jobs.c.error_code == chosen.error_code)
    if not found:
        raise InvalidSpec("which jobs: name their ids, a label or a batch")
    return [*found, *owned_by(chosen.owner)]


def page(
    connection: Connection,
    where: Sequence[ColumnElement[bool]],
    states: Sequence[State],
    after: str,
    limit: int,
) -> Rows:
    """The next jobs that fit, by id, held until the transaction ends."""
    query = (
        select(jobs.c.id, jobs.c.state, jobs.c.pool, jobs.c.priority, jobs.c.batch, jobs.c.run_at)
        .add_columns((jobs.c.run_at > Now()).label("delayed"))
        .where(*where, jobs.c.state.in_(states), jobs.c.id > after)
        # In one order everywhere: two such orders then wait instead of deadlocking.
        .order_by(jobs.c.id)
        .limit(limit)
        .with_for_update()
    )
    return connection.execute(query).all()


def cancel(connection: Connection, rows: Rows) -> list[Cancellation]:
    """Cancel what waits, and ask the owners of what runs; the transaction holds the rows."""
    queued = [row.id for row in rows if row.state == State.QUEUED]
    running = [row.id for row in rows if row.state == State.RUNNING]
    if queued:
        connection.execute(
            update(jobs)
            .where(jobs.c.id.in_(queued))
            .values(
                state=State.CANCELED,
                error_code=Canceled.code,
                error="canceled while it waited",
                finished_at=Now(),
            )
        )
        note_end(connection, queued)
    if running:
        connection.execute(update(jobs).where(jobs.c.id.in_(running)).values(cancel_requested=True))
    return [_outcome(row) for row in rows]


def retry(connection: Connection, rows: Rows, turns: dict[str | None, Turns]) -> list[str]:
    """Queue ended jobs as if they were submitted now, with all their attempts to spend again.

    Returns their ids. `turns` is kept from page to page. The transaction holds the rows.
    """
    flows: dict[str | None, list[Row[*tuple[Any, ...]]]] = {}
    for row in rows:
        flows.setdefault(row.batch, []).append(row)
    values: list[dict[str, object]] = []
    for batch in sorted(flows, key=lambda batch: batch or ""):
        due = [row for row in flows[batch] if not row.delayed]
        queues = [(row.pool, row.priority) for row in due]
        given = turns.setdefault(batch, Turns(batch)).give(connection, queues) if due else []
        values += [{"job_id": r.id, "its_turn": t} for r, t in zip(due, given, strict=True)]
        values += [{"job_id": r.id, "its_turn": None} for r in flows[batch] if r.delayed]
    if not values:
        return []
    statement = update(jobs).where(jobs.c.id == bindparam("job_id"))
    fresh = {
        "state": State.QUEUED,
        "turn": bindparam("its_turn"),
        "run_at": case((jobs.c.run_at > Now(), jobs.c.run_at), else_=Now()),
        # One that has passed already would only fail it again.
        "deadline": case((jobs.c.deadline <= Now(), null()), else_=jobs.c.deadline),
        "charged": 0,
        "worker": None,
        "error_code": None,
        "error": None,
        "finished_at": None,
        "cancel_requested": False,
    }
    connection.execute(statement.values(**fresh), values)
    ids = [row.id for row in rows]
    note(connection, ids)
    return ids


def _outcome(row: Row[*tuple[Any, ...]]) -> Cancellation:
    if row.state == State.QUEUED:
        return Cancellation(id=row.id, outcome="canceled", state=State.CANCELED)
    if row.state == State.RUNNING:
        return Cancellation(id=row.id, outcome="leaving", state=State.RUNNING)
    return Cancellation(id=row.id, outcome="ended", state=State(row.state))
