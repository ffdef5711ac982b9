"""How specs enter the ledger: in bulk, each key once."""

import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, select, update
from sqlalchemy import insert as plain_insert
from ulid import ULID

from storage.changes import note, note_end
from storage.clock import Now
from storage.database import among, insert, insert_many
from storage.errors import KeyConflict
from storage.fairness import LoneTurns, Turns
from storage.jobs import Asked, State, Submitted
from storage.spec import Spec, parse_spec
from storage.tables import IS_KEYED, jobs, labels

#: Seeds that the ledger draws stay within what other tools accept.
_SEEDS = 2**32

JobRow = dict[str, Any]


class NewJob(NamedTuple):
    """What the ledger keeps of a spec: plain values, which JSON has too."""

    #: The spec itself, with all of its seeds, as JSON.
    spec: str
    key: str | None
    #: Its first step's.
    model: str
    priority: int
    max_attempts: int
    #: Seconds since the epoch. None: at once.
    run_at: float | None
    deadline: float | None
    webhook_url: str | None
    labels: dict[str, str]


def new_job(spec: Spec) -> NewJob:
    """What the ledger keeps of a spec; seeds that were left open are drawn."""
    return NewJob(
        spec=_with_seeds(spec).model_dump_json(),
        key=spec.key,
        model=spec.steps[0].model,
        priority=spec.priority,
        max_attempts=spec.max_attempts,
        run_at=spec.run_at.timestamp() if spec.run_at else None,
        deadline=spec.deadline.timestamp() if spec.deadline else None,
        webhook_url=spec.webhook_url,
        labels=spec.labels,
    )


def submit(
    connection: Connection,
    specs: Sequence[Spec],
    pools: Sequence[str],
    batch: str | None,
    turns: Turns | LoneTurns,
    owner: str = "",
) -> list[Submitted]:
    """Enter specs, each in its pool and in their order; raises KeyConflict."""
    rows, made = make_jobs(connection, [*map(new_job, specs)], pools, batch, turns, owner=owner)
    holders = _holders(connection, owner, [r["key"] for r in rows if r["id"] not in made])
    found = []
    for spec, row in zip(specs, rows, strict=True):
        if row["id"] in made:
            found.append(Submitted(id=row["id"], created=True))
        else:
            job_id, stored = holders[row["key"]]
            _require_same(spec, stored, job_id)
            found.append(Submitted(id=job_id, created=False))
    return found


def make_jobs(
    connection: Connection,
    new: Sequence[NewJob],
    pools: Sequence[str],
    batch: str | None,
    turns: Turns | LoneTurns,
    owner: str = "",
) -> tuple[list[JobRow], set[str]]:
    """Make a job of each whose key no job has; returns what would be one, and the new ids."""
    now = connection.execute(select(Now())).scalar_one()
    rows = [_row(job, pool, batch, owner, now) for job, pool in zip(new, pools, strict=True)]
    due = [row for row in rows if row["run_at"] <= now]
    queues = [(row["pool"], row["priority"]) for row in due]
    for row, turn in zip(due, turns.give(connection, queues) if due else (), strict=True):
        row["turn"] = turn
    made = _insert(connection, rows)
    named = [
        {"job_id": row["id"], "name": name, "value": value}
        for job, row in zip(new, rows, strict=True)
        if job.labels and row["id"] in made
        for name, value in job.labels.items()
    ]
    if named:
        connection.execute(plain_insert(labels), named)
    if batch is None:  # a batch's own progress tells as much as 100,000 such events
        note(connection, [row["id"] for row in rows if row["id"] in made])
    return rows, made


def submit_each(connection: Connection, many: Sequence[Asked]) -> list[Submitted | KeyConflict]:
    """Enter jobs that each stand alone; those of one owner together, unless one has a conflict."""
    found: dict[int, Submitted | KeyConflict] = {}
    for owner in sorted({asked.owner for asked in many}):
        places = [place for place, asked in enumerate(many) if asked.owner == owner]
        answers = _together(connection, [many[place] for place in places])
        found.update(zip(places, answers, strict=True))
    return [found[place] for place in range(len(many))]


def _together(connection: Connection, many: Sequence[Asked]) -> list[Submitted | KeyConflict]:
    specs, pools = [asked.spec for asked in many], [asked.pool for asked in many]
    try:
        with connection.begin_nested():
            entered = submit(connection, specs, pools, None, LoneTurns(), many[0].owner)
    except KeyConflict as conflict:
        if len(many) == 1:
            return [conflict]
        return [answer for asked in many for answer in _together(connection, [asked])]
    return list(entered)


def refuse(connection: Connection, spec: Spec, pool: str, code: str, message: str) -> Submitted:
    """Enter a spec as a job that has failed; raises KeyConflict."""
    (entered,) = submit(connection, [spec], [pool], None, Turns(None))
    if entered.created:
        failed = {"state": State.FAILED, "error_code": code, "error": message, "finished_at": Now()}
        connection.execute(update(jobs).where(jobs.c.id == entered.id).values(**failed))
        note_end(connection, [entered.id])
    return entered


def _row(job: NewJob, pool: str, batch: str | None, owner: str, now: float) -> JobRow:
    return {
        "id": str(ULID()).lower(),
        "state": State.QUEUED,
        "pool": pool,
        "priority": job.priority,
        "run_at": now if job.run_at is None else job.run_at,
        "deadline": job.deadline,
        "key": job.key,
        "spec": job.spec,
        "batch": batch,
        "owner": owner,
        "webhook_url": job.webhook_url,
        "turn": None,
        "next_model": job.model,
        "cancel_requested": False,
        "carries": False,
        "attempt": 0,
        "charged": 0,
        "max_attempts": job.max_attempts,
        "step": 0,
        "progress_done": 0,
        "progress_total": 0,
        "created_at": now,
    }


def _insert(connection: Connection, rows: list[JobRow]) -> set[str]:
    """Insert what has no key, or a key that no job of the owner has; returns the new ids.

    All rows have one owner.
    """
    free = [row for row in rows if row["key"] is None]
    # In one order everywhere: two submissions of the same keys then wait instead of deadlocking.
    keyed = sorted((row for row in rows if row["key"] is not None), key=lambda row: row["key"])
    made = {row["id"] for row in free}
    if free:
        insert_many(connection, plain_insert(jobs), free)
    if keyed:
        statement = insert(connection, jobs).on_conflict_do_nothing(
            index_elements=[jobs.c.owner, jobs.c.key], index_where=IS_KEYED
        )
        ids = {row["id"] for row in keyed}
        if insert_many(connection, statement, keyed) != len(keyed):
            # Asked for only now: RETURNING costs more than the insert itself.
            there = select(jobs.c.id).where(among(connection, jobs.c.id, list(ids)))
            ids &= set(connection.scalars(there))
        made |= ids
    return made


def has_key(connection: Connection, owner: str, keys: Sequence[str | None]) -> ColumnElement[bool]:
    """Which jobs of an owner have one of the keys."""
    one = and_(jobs.c.owner == owner, among(connection, jobs.c.key, keys))
    # Postgres has to be told that its partial index serves. SQLite sees it, and told so would look
    # at every key instead.
    return and_(IS_KEYED, one) if connection.dialect.name == "postgresql" else one


def _holders(connection: Connection, owner: str, keys: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The job and its spec behind each key."""
    if not keys:
        return {}
    columns = (jobs.c.key, jobs.c.id, jobs.c.spec)
    query = select(*columns).where(has_key(connection, owner, keys))
    return {key: (job_id, spec) for key, job_id, spec in connection.execute(query)}


def _require_same(asked: Spec, stored: str, job_id: str) -> None:
    there = parse_spec(stored)
    # A seed left open takes the one that was drawn the first time.
    steps = tuple(
        step.model_copy(update={"seed": known.seed}) if step.seed is None else step
        for step, known in zip(asked.steps, there.steps, strict=False)
    )
    if len(asked.steps) == len(there.steps) and asked.model_copy(update={"steps": steps}) == there:
        return
    differing = [n for n in Spec.model_fields if getattr(asked, n) != getattr(there, n)]
    raise KeyConflict(
        f"key: {asked.key!r} belongs to job {job_id}, whose {' and '.join(differing)} differ;"
        " a key stands for one spec"
    )


def _with_seeds(spec: Spec) -> Spec:
    if all(step.seed is not None for step in spec.steps):
        return spec
    # A validated spec needs no second look, and there may be millions.
    steps = tuple(
        type(step).model_construct(**{**step.__dict__, "seed": secrets.randbelow(_SEEDS)})
        if step.seed is None
        else step
        for step in spec.steps
    )
    return Spec.model_construct(**{**spec.__dict__, "steps": steps})
