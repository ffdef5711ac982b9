"""Noting what happens to jobs, in the transaction that makes it happen.

Events are for those who watch (storage.events), deliveries for those who gave a webhook's URL
(storage.webhooks).
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from sqlalchemy import Connection, false, insert, literal, select

from storage.api_tables import deliveries, events
from storage.clock import Now
from storage.tables import jobs

#: Ids that one statement names.
_CHUNK = 500
_ENDED = ("succeeded", "failed", "canceled")


def note(
    connection: Connection, job_ids: Sequence[str], kind: Literal["step"] | None = None
) -> None:
    """Jobs have come to the state that they are in now, or have finished a step."""
    what = literal(kind).label("kind") if kind else jobs.c.state.label("kind")
    said = (jobs.c.id, jobs.c.owner, jobs.c.batch, what, jobs.c.step, jobs.c.attempt)
    names = ("job_id", "owner", "batch", "kind", "step", "attempt", "error_code", "at")
    for some in _chunks(job_ids):
        rows = select(*said, jobs.c.error_code, Now()).where(jobs.c.id.in_(some))
        connection.execute(insert(events).from_select(names, rows.order_by(jobs.c.id)))


def note_end(connection: Connection, job_ids: Sequence[str]) -> None:
    """An attempt of these jobs is over: who wants to hear of the end of those that ended will."""
    note(connection, job_ids)
    names = (
        "job_id",
        "owner",
        "url",
        "state",
        "error_code",
        "at",
        "attempt",
        "due_at",
        "delivered",
    )
    told = (jobs.c.id, jobs.c.owner, jobs.c.webhook_url, jobs.c.state, jobs.c.error_code)
    for some in _chunks(job_ids):
        rows = select(*told, Now(), literal(0), Now(), false()).where(
            jobs.c.id.in_(some), jobs.c.webhook_url.is_not(None), jobs.c.state.in_(_ENDED)
        )
        connection.execute(insert(deliveries).from_select(names, rows))


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[at : at + _CHUNK] for at in range(0, len(ids), _CHUNK))
